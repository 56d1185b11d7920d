"""Limits without the limiter: each edge worker enforces its share of every window.

The share of a limit is the limit divided by the number of live edge workers that the limiter last counted, at least one
unit. The arithmetic is that of the limiter (`contract/windows.py`), with the share in place of the limit.

**Token bucket.** A worker keeps what is missing to its full share. The last verdict raises it to this worker's part of
what the limiter saw missing, and what is admitted here adds to it; nothing but time makes it smaller. So whatever the
limiter does meanwhile (comes back for a moment, is slow, has forgotten everything), a worker admits by itself at most
its share and what its share refills, in any interval; and right after a verdict, at most its part of what was left.

**Sliding window.** A worker keeps what it admitted by itself in the last slices; the last verdict raises that, once, to
this worker's part of what the limiter saw taken, as if it were taken then.

**Calendar window.** A worker may admit its part of what the limiter last said was left in the same period, else of the
whole limit, less what it has admitted by itself in that period. The limiter learns of the latter from metering only, so
where it has learnt, the same units count twice here: the error is on the careful side.

The limiter does not learn at once what was admitted here: while it is away, all workers together admit at most what was
left plus one refill, give or take a unit per worker, and its own buckets refill in the same time.

An organization whose limits were never seen passes up to `UNSEEN_UNITS_PER_MINUTE` per worker: bounded, and better
than refusing a customer because this worker is young.

Buckets follow the monotonic clock, so a step of the wall clock refills nothing. Calendar windows follow the wall clock;
one that goes back to an earlier period keeps the count of the later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, assert_never

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract.calendar_windows import CalendarInstant, calendar_instant_of
from contract.windows import (
    Slices,
    Window,
    WindowKind,
    WindowScope,
    bucket_left,
    bucket_wait_ms,
    calendar_left_ms,
    calendar_window_id,
    debt_after,
    slice_of,
    whole_ms_after,
)
from edge_proxy.limiter.policy import CompiledPolicy, Policies

UNSEEN_UNITS_PER_MINUTE: Final = 60
COUNTERS_MAX: Final = 200_000
LAST_VERDICTS_MAX: Final = 200_000

_UNSEEN: Final = (
    Window(
        name="local",
        kind=WindowKind.TOKEN_BUCKET,
        scope=WindowScope.ORGANIZATION,
        limit=UNSEEN_UNITS_PER_MINUTE,
        period_seconds=60,
        counts_billable_only=False,
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


# What the limiter said last about some scope, and when on the monotonic clock.
_Last: TypeAlias = tuple[ratelimit.Verdict, int]


@dataclass(slots=True)
class _Counter:
    """One window of one scope: a bucket's numbers, a calendar window's, a sliding window's."""

    debt: int = 0
    period_ms: int = 0
    at_ms: int = 0
    window_id: int = 0
    admitted_units: int = 0
    slices: Slices = field(default_factory=Slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What was left in one window at the limiter's last verdict; `time_us` is what chose its calendar windows."""

    remaining: int
    at_ms: int
    time_us: int


@dataclass(slots=True)
class _Room:
    """What a window of the request says."""

    counter: _Counter
    left: int
    wait_ms: int
    whole_ms: int


class LocalShare:
    """Decides in the limiter's place.

    Args:
        policies: Limits that came over the stream before it was lost.
        now_ms: Monotonic milliseconds.
    """

    def __init__(self, policies: Policies, now_ms: Callable[[], int]) -> None:
        self._policies = policies
        self._now_ms = now_ms
        self._counters: dict[tuple[object, ...], _Counter] = {}
        self._last: dict[tuple[object, ...], _Last] = {}
        self.live_edges = 1

    def note(self, asking: Asking, policy: CompiledPolicy | None, verdict: ratelimit.Verdict) -> None:
        """Remember what the limiter said last; this runs for every request."""
        if policy is None or not verdict.remaining:
            return
        said = (verdict, self._now_ms())
        for scope in policy.scopes:
            self._last[asking.organization_id, asking.test_mode, _scope_id(asking, scope)] = said
        while len(self._last) > LAST_VERDICTS_MAX:
            self._last.pop(next(iter(self._last)))

    def decide(self, asking: Asking, now_us: int) -> ratelimit.Verdict:
        """Take the units from every window, or from none.

        Args:
            asking: Who wants how much.
            now_us: Unix time in microseconds; calendar windows are chosen by it.
        """
        policy = self._policies.get(asking.organization_id)
        windows = policy.windows if policy is not None else _UNSEEN
        instant, now_ms = calendar_instant_of(now_us), self._now_ms()
        rooms = [
            self._room(asking, window, self._said(asking, policy, index), instant, now_ms)
            for index, window in enumerate(windows)
        ]
        denied = [index for index, room in enumerate(rooms) if room.wait_ms > 0]
        if denied:
            longest = max(denied, key=lambda index: rooms[index].wait_ms)
            return _verdict(ratelimit.VERDICT_KIND_DENIED, rooms, now_us, longest)
        for window, room in zip(windows, rooms, strict=True):
            _take(window, room, asking.cost_units)
        return _verdict(ratelimit.VERDICT_KIND_ALLOWED, rooms, now_us, None)

    def _said(self, asking: Asking, policy: CompiledPolicy | None, index: int) -> _Said | None:
        """Return what was left in a window at the last verdict about it, if that was under the same policy."""
        if policy is None:
            return None
        scope = policy.windows[index].scope
        last = self._last.get((asking.organization_id, asking.test_mode, _scope_id(asking, scope)))
        if last is None:
            return None
        verdict, at_ms = last
        if verdict.policy_version != policy.version or index >= len(verdict.remaining):
            return None
        return _Said(remaining=verdict.remaining[index], at_ms=at_ms, time_us=verdict.calendar_time_us)

    def _room(
        self,
        asking: Asking,
        window: Window,
        said: _Said | None,
        instant: CalendarInstant,
        now_ms: int,
    ) -> _Room:
        counter = self._counter(asking, window)
        match window.kind:
            case WindowKind.TOKEN_BUCKET:
                return self._bucket_room(asking.cost_units, window, counter, said, now_ms)
            case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH:
                return self._calendar_room(asking.cost_units, window, counter, said, instant)
            case WindowKind.SLIDING:
                return self._sliding_room(asking.cost_units, window, counter, said, now_ms)
            case _:
                assert_never(window.kind)

    def _bucket_room(self, cost: int, window: Window, counter: _Counter, said: _Said | None, now_ms: int) -> _Room:
        share, period_ms = max(1, window.limit // self.live_edges), window.period_ms
        if counter.period_ms != period_ms:
            # Another policy's count is carried over in units, rounded up.
            counter.debt = -(-counter.debt * period_ms // counter.period_ms) if counter.period_ms else 0
            counter.period_ms = period_ms
        if said is not None:
            # What the limiter saw missing to this worker's share, of which time has made up for some.
            missing = max(0, share * period_ms - said.remaining * period_ms // self.live_edges)
            missing = debt_after(missing, share, period_ms, max(0, counter.at_ms - said.at_ms))
            then = debt_after(counter.debt, share, period_ms, max(0, said.at_ms - counter.at_ms))
            counter.debt, counter.at_ms = max(then, missing), max(counter.at_ms, said.at_ms)
        counter.debt = debt_after(counter.debt, share, period_ms, max(0, now_ms - counter.at_ms))
        counter.at_ms = now_ms
        left = bucket_left(counter.debt, share, period_ms)
        next_ms = bucket_wait_ms(counter.debt, share, period_ms, left + 1) if left < share else 0
        return _Room(
            counter=counter,
            left=left,
            wait_ms=bucket_wait_ms(counter.debt, share, period_ms, cost),
            whole_ms=whole_ms_after(window.limit, period_ms, left, next_ms),
        )

    def _sliding_room(self, cost: int, window: Window, counter: _Counter, said: _Said | None, now_ms: int) -> _Room:
        share, period_ms, slices = max(1, window.limit // self.live_edges), window.period_ms, counter.slices
        if counter.period_ms not in {0, period_ms}:
            # Slices of another length cannot be told apart any more: all of it counts as taken now.
            units = slices.total()
            slices = counter.slices = Slices(newest=slice_of(now_ms, period_ms))
            slices.take(units)
        counter.period_ms = period_ms
        if said is not None and said.at_ms > counter.at_ms:
            slices.advance(said.at_ms, period_ms)
            slices.take(max(0, share - said.remaining // self.live_edges - slices.total()))
            counter.at_ms = said.at_ms
        slices.advance(now_ms, period_ms)
        taken = slices.total()
        over = taken + cost - share
        return _Room(
            counter=counter,
            left=max(0, share - taken),
            wait_ms=max(1, slices.back_ms(over, period_ms) - now_ms) if over > 0 else 0,
            whole_ms=max(0, slices.back_ms(1, period_ms) - now_ms) if taken else 0,
        )

    def _calendar_room(
        self, cost: int, window: Window, counter: _Counter, said: _Said | None, instant: CalendarInstant
    ) -> _Room:
        current = calendar_window_id(window.kind, instant)
        if current > counter.window_id:
            counter.window_id, counter.admitted_units = current, 0
        share = max(1, window.limit // self.live_edges)
        if said is not None and calendar_window_id(window.kind, calendar_instant_of(said.time_us)) == current:
            share = said.remaining // self.live_edges
        left = max(0, share - counter.admitted_units)
        ends_ms = calendar_left_ms(window.kind, instant)
        return _Room(counter=counter, left=left, wait_ms=0 if cost <= left else ends_ms, whole_ms=ends_ms)

    def _counter(self, asking: Asking, window: Window) -> _Counter:
        """Return a window's counter; the one that was not asked for longest makes room."""
        key = (asking.organization_id, asking.test_mode, _scope_id(asking, window.scope), window.name, window.kind)
        counter = self._counters.pop(key, None) or _Counter()
        self._counters[key] = counter
        if len(self._counters) > COUNTERS_MAX:
            self._counters.pop(next(iter(self._counters)))
        return counter


def _take(window: Window, room: _Room, cost: int) -> None:
    match window.kind:
        case WindowKind.TOKEN_BUCKET:
            room.counter.debt += cost * window.period_ms
        case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH:
            room.counter.admitted_units += cost
        case WindowKind.SLIDING:
            room.counter.slices.take(cost)
        case _:
            assert_never(window.kind)
    room.left -= cost


def _verdict(
    kind: ratelimit.VerdictKind.ValueType, rooms: list[_Room], now_us: int, denied_by: int | None
) -> ratelimit.Verdict:
    return ratelimit.Verdict(
        kind=kind,
        remaining=[max(0, room.left) for room in rooms],
        reset_ms=[room.whole_ms for room in rooms],
        denied_by=denied_by or 0,
        retry_after_ms=rooms[denied_by].wait_ms if denied_by is not None else 0,
        calendar_time_us=now_us,
    )


def _scope_id(asking: Asking, scope: WindowScope) -> object:
    match scope:
        case WindowScope.ORGANIZATION:
            return None
        case WindowScope.API_KEY:
            return asking.api_key_id
        case WindowScope.ROUTE:
            return asking.route_id
        case _:
            assert_never(scope)
