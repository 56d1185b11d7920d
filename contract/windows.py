"""Limits: one description per kind of window, for whoever decides, checks or shows one.

`decide.lua` (in Redis), ratelimit, the edge's local share, the header fields and the validation of policies read this
module; a new kind starts here. Functions of a kind `match` it and end in `assert_never`, so the type checker names
every place that a new kind must be added to. The numbers of kinds and scopes are the proto's.

**Token bucket.** Its state is `debt`: what is missing to a full bucket, in units x period in milliseconds. It shrinks
by `limit` per millisecond and grows by cost x period. All of it is integers, so nothing is rounded and nothing drifts;
Lua counts in doubles, which hold integers below 2^53 exactly, hence `EXACT_MAX`.

**Sliding window.** The period is cut into `SLICES` slices. Its state is the number of the newest slice and the units
taken in each of the last `SLICES + 1`: as many as an interval of one period can touch. Their sum never exceeds the
limit, so no interval of one period holds more; in exchange a unit comes back up to one slice after its period.

**Calendar window.** Its state is the number of the day or month, the units taken in it, and whether metering has been
asked about them. `calendar_windows.py` has the calendar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final, assert_never

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.calendar_windows import CalendarInstant, day_start, month_start

MS_PER_SECOND: Final = 1_000
PERIOD_SECONDS_MAX: Final = 31 * 86_400
# Lua counts in doubles, and limit x period in milliseconds must be exact in one.
EXACT_MAX: Final = 2**53 - 1
CALENDAR_LIMIT_MAX: Final = 2**52
SLIDING_LIMIT_MAX: Final = 2**52
SLICES: Final = 32


class WindowKind(IntEnum):
    """How a window refills."""

    TOKEN_BUCKET = pb.WINDOW_KIND_TOKEN_BUCKET
    CALENDAR_DAY = pb.WINDOW_KIND_CALENDAR_DAY
    CALENDAR_MONTH = pb.WINDOW_KIND_CALENDAR_MONTH
    SLIDING = pb.WINDOW_KIND_SLIDING


class WindowScope(IntEnum):
    """Whose requests share a window."""

    ORGANIZATION = pb.WINDOW_SCOPE_ORGANIZATION
    API_KEY = pb.WINDOW_SCOPE_API_KEY
    ROUTE = pb.WINDOW_SCOPE_ROUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One limit. `period_seconds` is 0 for calendar windows."""

    name: str
    kind: WindowKind
    scope: WindowScope
    limit: int
    period_seconds: int
    counts_billable_only: bool

    @property
    def period_ms(self) -> int:
        """Return the period in the unit of the arithmetic."""
        return self.period_seconds * MS_PER_SECOND


_KINDS: Final[frozenset[int]] = frozenset(WindowKind)
CALENDAR_KINDS: Final = frozenset({WindowKind.CALENDAR_DAY, WindowKind.CALENDAR_MONTH})


def state_fields(kind: WindowKind) -> tuple[str, ...]:
    """Return the numbers that are kept per window, in their order."""
    match kind:
        case WindowKind.TOKEN_BUCKET:
            return ("debt",)
        case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH:
            return ("id", "used", "is_seeded")
        case WindowKind.SLIDING:
            return ("newest", *(f"used_{number}" for number in range(SLICES + 1)))
        case _:
            assert_never(kind)


def lua_constants() -> str:
    """Return what a script in Redis must know of the kinds, as the first lines of the script."""
    names = ", ".join(kind.name for kind in WindowKind)
    numbers = ", ".join(str(int(kind)) for kind in WindowKind)
    lengths = ", ".join(f"[{kind.name}] = {len(state_fields(kind))}" for kind in WindowKind)
    return f"local {names} = {numbers}\nlocal STATE_LENGTH = {{{lengths}}}\nlocal SLICES = {SLICES}\n"


def calendar_window_id(kind: WindowKind, instant: CalendarInstant) -> int:
    """Return the number of the calendar window that an instant falls into.

    Raises:
        ValueError: The kind has no calendar.
    """
    match kind:
        case WindowKind.CALENDAR_DAY:
            return instant.day
        case WindowKind.CALENDAR_MONTH:
            return instant.month
        case WindowKind.TOKEN_BUCKET | WindowKind.SLIDING:
            raise ValueError("the kind has no calendar")
        case _:
            assert_never(kind)


def calendar_window_start(kind: WindowKind, instant: CalendarInstant) -> datetime:
    """Return the first instant of the calendar window that an instant falls into.

    Raises:
        ValueError: The kind has no calendar.
    """
    match kind:
        case WindowKind.CALENDAR_DAY:
            return day_start(instant)
        case WindowKind.CALENDAR_MONTH:
            return month_start(instant)
        case WindowKind.TOKEN_BUCKET | WindowKind.SLIDING:
            raise ValueError("the kind has no calendar")
        case _:
            assert_never(kind)


def calendar_left_ms(kind: WindowKind, instant: CalendarInstant) -> int:
    """Return the milliseconds until the calendar window of an instant ends.

    Raises:
        ValueError: The kind has no calendar.
    """
    match kind:
        case WindowKind.CALENDAR_DAY:
            return instant.day_left_ms
        case WindowKind.CALENDAR_MONTH:
            return instant.month_left_ms
        case WindowKind.TOKEN_BUCKET | WindowKind.SLIDING:
            raise ValueError("the kind has no calendar")
        case _:
            assert_never(kind)


def from_message(message: pb.Window) -> Window:
    """Read a window that has been checked."""
    return Window(
        name=message.name,
        kind=WindowKind(message.kind),
        scope=WindowScope(message.scope),
        limit=message.limit,
        period_seconds=message.period_seconds,
        counts_billable_only=message.counts_billable_only,
    )


# Token bucket.


def debt_after(debt: int, limit: int, period_ms: int, elapsed_ms: int) -> int:
    """Return a debt after some time; a smaller bucket holds less debt."""
    if elapsed_ms >= period_ms:
        return 0
    return max(0, min(debt, limit * period_ms) - elapsed_ms * limit)


def bucket_left(debt: int, limit: int, period_ms: int) -> int:
    """Return the whole units that fit."""
    return max(0, (limit * period_ms - debt) // period_ms)


def bucket_wait_ms(debt: int, limit: int, period_ms: int, cost: int) -> int:
    """Return the milliseconds until a cost fits; 0 where it fits now."""
    over = debt + (cost - limit) * period_ms
    return -(-over // limit) if over > 0 else 0


def bucket_whole_ms(debt: int, limit: int) -> int:
    """Return the milliseconds until nothing is missing."""
    return -(-debt // limit)


# Sliding window.


def slice_of(now_ms: int, period_ms: int) -> int:
    """Return the number of the slice that an instant falls into."""
    return now_ms * SLICES // period_ms


def slice_back_ms(number: int, period_ms: int) -> int:
    """Return the instant, in milliseconds, at which the units of a slice come back."""
    return -(-(number + SLICES + 1) * period_ms // SLICES)


@dataclass(slots=True)
class Slices:
    """The units taken in the last slices of a sliding window. One that goes back in time stays where it was."""

    newest: int = 0
    used: list[int] = field(default_factory=lambda: [0] * (SLICES + 1))

    def advance(self, now_ms: int, period_ms: int) -> None:
        """Forget what has come back by an instant."""
        current = slice_of(now_ms, period_ms)
        for number in range(max(self.newest + 1, current - SLICES), current + 1):
            self.used[number % (SLICES + 1)] = 0
        self.newest = max(self.newest, current)

    def total(self) -> int:
        """Return the units that have not come back."""
        return sum(self.used)

    def take(self, units: int) -> None:
        """Take units in the newest slice."""
        self.used[self.newest % (SLICES + 1)] += units

    def back_ms(self, units: int, period_ms: int) -> int:
        """Return the instant at which so many units have come back; with fewer units taken, that of the newest."""
        for number in range(self.newest - SLICES, self.newest + 1):
            units -= self.used[number % (SLICES + 1)]
            if units <= 0:
                return slice_back_ms(number, period_ms)
        return slice_back_ms(self.newest, period_ms)


# What clients are told.


def refill_ms(window: Window) -> int:
    """Return the milliseconds in which an empty window fills unit by unit; 0 where `reset_ms` says when more comes."""
    match window.kind:
        case WindowKind.TOKEN_BUCKET:
            return window.period_ms
        case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH | WindowKind.SLIDING:
            return 0
        case _:
            assert_never(window.kind)


def more_ms(limit: int, refill_ms: int, remaining: int, whole_ms: int) -> int:
    """Return the milliseconds until more quota comes: what `RateLimit;t` says. This runs per request and window.

    Args:
        limit: The window's limit.
        refill_ms: What `refill_ms` says of it.
        remaining: Whole units that are left.
        whole_ms: Milliseconds until the window is whole again (`Verdict.reset_ms`).
    """
    # The next unit comes when all that is missing has come, but for the units behind the next one.
    later_units = limit - remaining - 1
    more = whole_ms - later_units * refill_ms // limit if later_units > 0 else whole_ms
    return max(0, more)


def whole_ms_after(limit: int, refill_ms: int, remaining: int, next_ms: int) -> int:
    """Return the milliseconds until a window is whole whose next unit comes in `next_ms`: `more_ms` turned round.

    The edge's local share refills slower than the limit. What it tells is when its next unit comes, and that the rest
    follows at the limit's own pace, because the limiter will be back.
    """
    return next_ms + max(0, limit - remaining - 1) * refill_ms // limit


def lasts_ms(window: Window) -> int:
    """Return how long the state of a window matters after its last unit was taken; 0 where the calendar says."""
    match window.kind:
        case WindowKind.TOKEN_BUCKET:
            return window.period_ms
        case WindowKind.SLIDING:
            return -(-(SLICES + 1) * window.period_ms // SLICES)
        case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH:
            return 0
        case _:
            assert_never(window.kind)


def problems(window: pb.Window) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the numbers of a window: the field, and what it must be."""
    if window.limit < 1:
        yield "limit", "must be at least 1"
    if window.kind not in _KINDS:
        yield "kind", "must be a known kind"
        return
    kind = WindowKind(window.kind)
    match kind:
        case WindowKind.TOKEN_BUCKET:
            yield from _bucket_problems(window)
        case WindowKind.SLIDING:
            yield from _sliding_problems(window)
        case WindowKind.CALENDAR_DAY | WindowKind.CALENDAR_MONTH:
            if window.period_seconds != 0:
                yield "period_seconds", "must be 0 for a calendar window"
            if window.limit > CALENDAR_LIMIT_MAX:
                yield "limit", f"must be at most {CALENDAR_LIMIT_MAX}"
        case _:
            assert_never(kind)


def _bucket_problems(window: pb.Window) -> Iterator[tuple[str, str]]:
    if not 1 <= window.period_seconds <= PERIOD_SECONDS_MAX:
        yield "period_seconds", f"must be 1 to {PERIOD_SECONDS_MAX} for a token bucket"
    else:
        limit_max = EXACT_MAX // (window.period_seconds * MS_PER_SECOND)
        if window.limit > limit_max:
            yield "limit", f"must be at most {limit_max} with this period"
    if window.counts_billable_only:
        yield (
            "counts_billable_only",
            "is for calendar windows: a token bucket limits how fast requests come, billed or not",
        )


def _sliding_problems(window: pb.Window) -> Iterator[tuple[str, str]]:
    if not 1 <= window.period_seconds <= PERIOD_SECONDS_MAX:
        yield "period_seconds", f"must be 1 to {PERIOD_SECONDS_MAX} for a sliding window"
    if window.limit > SLIDING_LIMIT_MAX:
        yield "limit", f"must be at most {SLIDING_LIMIT_MAX}"
    if window.counts_billable_only:
        yield "counts_billable_only", "is for calendar windows: a sliding window limits requests, billed or not"
