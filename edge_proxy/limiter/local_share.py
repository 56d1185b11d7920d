"""Limits without the limiter: each edge worker enforces its share of every window.

The share is the limit divided by the number of live edge workers that the limiter last counted, at least one unit.
Token buckets start full; a calendar window starts with the share of what the limiter last said was left in the same
period, else of the whole limit. So while the limiter is away all workers together admit at most one further bucket per
window plus what really was left, give or take one unit per worker; what they admitted is not told to the limiter
afterwards (a month's counter is rebuilt from metering). When the limiter is back, local counters are forgotten.

An organization whose limits were never seen passes up to `UNSEEN_UNITS_PER_MINUTE` per worker: bounded, and better
than refusing a customer because this worker is young.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.limiter.policy import CALENDAR_KINDS, CompiledPolicy, Policies

UNSEEN_UNITS_PER_MINUTE: Final = 60
COUNTERS_MAX: Final = 200_000
LAST_VERDICTS_MAX: Final = 200_000

_UNSEEN: Final = (
    ratelimit.Window(
        name="local",
        kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET,
        limit=UNSEEN_UNITS_PER_MINUTE,
        period_seconds=60,
        scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who wants how much."""

    organization_id: bytes
    api_key_id: bytes
    route_id: str
    cost_units: int
    test_mode: bool


@dataclass(slots=True)
class _Counter:
    """Units left in one window of one scope, and when that was true."""

    left: float
    at_seconds: float
    period_start: datetime | None


class LocalShare:
    """Decides in the limiter's place.

    Args:
        policies: Limits that came over the stream before it was lost.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._counters: dict[tuple[object, ...], _Counter] = {}
        self._last: dict[tuple[bytes, bool], ratelimit.Verdict] = {}
        self.live_edges = 1

    def note(self, asking_organization: bytes, test_mode: bool, verdict: ratelimit.Verdict) -> None:
        """Remember what the limiter said last, for the calendar windows."""
        self._last[asking_organization, test_mode] = verdict
        if len(self._last) > LAST_VERDICTS_MAX:
            self._last.pop(next(iter(self._last)))

    def forget_counters(self) -> None:
        """Start anew at the next outage: the limiter counts again."""
        self._counters.clear()

    def decide(self, asking: Asking, now: datetime) -> ratelimit.Verdict:
        """Take the units from every window, or from none."""
        policy = self._policies.get(asking.organization_id)
        windows = policy.windows if policy is not None else _UNSEEN
        if len(self._counters) > COUNTERS_MAX:
            self._counters.clear()
        counters = [self._counter(asking, policy, index, now) for index in range(len(windows))]
        if any(counter.left < asking.cost_units for counter in counters):
            return self._denied(asking.cost_units, windows, counters, now)
        for counter in counters:
            counter.left -= asking.cost_units
        return self._to_verdict(windows, counters, now)

    def _counter(self, asking: Asking, policy: CompiledPolicy | None, index: int, now: datetime) -> _Counter:
        window = policy.windows[index] if policy is not None else _UNSEEN[index]
        key = (asking.organization_id, asking.test_mode, window.name, _scope_id(asking, window))
        seconds = now.timestamp()
        counter = self._counters.get(key)
        if window.kind in CALENDAR_KINDS:
            start = period_start(window, now)
            if counter is None or counter.period_start != start:
                known = self._left_in_calendar(asking, policy, index, start)
                left = self._share(window.limit if known is None else known)
                counter = _Counter(float(left), seconds, start)
        else:
            share = self._share(window.limit)
            if counter is None:
                counter = _Counter(float(share), seconds, None)
            refill = max(0.0, seconds - counter.at_seconds) * share / max(window.period_seconds, 1)
            counter.left = min(float(share), counter.left + refill)
            counter.at_seconds = seconds
        self._counters[key] = counter
        return counter

    def _share(self, units: int) -> int:
        return max(1, units // max(self.live_edges, 1)) if units > 0 else 0

    def _left_in_calendar(
        self, asking: Asking, policy: CompiledPolicy | None, index: int, start: datetime
    ) -> int | None:
        """Return what the limiter last said was left in an organization's window of this period, if it did."""
        last = self._last.get((asking.organization_id, asking.test_mode))
        if last is None or policy is None or last.policy_version != policy.version or index >= len(last.remaining):
            return None
        is_shared = policy.windows[index].scope == ratelimit.WINDOW_SCOPE_ORGANIZATION
        is_same_period = datetime.fromtimestamp(last.calendar_time_us / 1e6, UTC) >= start
        return last.remaining[index] if is_shared and is_same_period else None

    def _denied(
        self, cost_units: int, windows: tuple[ratelimit.Window, ...], counters: list[_Counter], now: datetime
    ) -> ratelimit.Verdict:
        verdict = self._to_verdict(windows, counters, now)
        denied = [index for index, counter in enumerate(counters) if counter.left < cost_units]
        waits = {i: self._wait_ms(windows[i], counters[i], cost_units, verdict.reset_ms[i]) for i in denied}
        verdict.kind = ratelimit.VERDICT_KIND_DENIED
        verdict.denied_by = max(denied, key=waits.__getitem__)
        verdict.retry_after_ms = waits[verdict.denied_by]
        return verdict

    def _to_verdict(
        self, windows: tuple[ratelimit.Window, ...], counters: list[_Counter], now: datetime
    ) -> ratelimit.Verdict:
        return ratelimit.Verdict(
            kind=ratelimit.VERDICT_KIND_ALLOWED,
            remaining=[max(0, int(counter.left)) for counter in counters],
            reset_ms=[self._reset_ms(window, counter, now) for window, counter in zip(windows, counters, strict=True)],
            calendar_time_us=int(now.timestamp() * 1e6),
        )

    def _reset_ms(self, window: ratelimit.Window, counter: _Counter, now: datetime) -> int:
        if window.kind in CALENDAR_KINDS:
            return int((period_end(window, now) - now).total_seconds() * 1000)
        share = self._share(window.limit)
        return int((share - counter.left) * window.period_seconds * 1000 / share) if share else 0

    def _wait_ms(self, window: ratelimit.Window, counter: _Counter, cost_units: int, reset_ms: int) -> int:
        share = self._share(window.limit)
        if window.kind in CALENDAR_KINDS or not share:
            return reset_ms
        return int((cost_units - counter.left) * window.period_seconds * 1000 / share) + 1


def period_start(window: ratelimit.Window, now: datetime) -> datetime:
    """Return the start of the calendar period that contains `now`, UTC."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if window.kind == ratelimit.WINDOW_KIND_CALENDAR_DAY else day.replace(day=1)


def period_end(window: ratelimit.Window, now: datetime) -> datetime:
    """Return the end of the calendar period that contains `now`, UTC."""
    start = period_start(window, now)
    if window.kind == ratelimit.WINDOW_KIND_CALENDAR_DAY:
        return start + timedelta(days=1)
    return (start + timedelta(days=32)).replace(day=1)


def _scope_id(asking: Asking, window: ratelimit.Window) -> object:
    if window.scope == ratelimit.WINDOW_SCOPE_API_KEY:
        return asking.api_key_id
    if window.scope == ratelimit.WINDOW_SCOPE_ROUTE:
        return asking.route_id
    return None
