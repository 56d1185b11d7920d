"""Decides which period an event belongs to when its own times cannot be right. Pure.

A clock that is wrong must not cost money: an event that one of our own edges has served and recorded is taken in
whatever its times say. The rule, in full:

* The event is *believed* where its id and its start lie between `AGE_MAX` ago and `CLOCK_SKEW_MAX` ahead of metering's
  clock, and its durations are not negative. It is billed at its own start.
* Otherwise it is *suspect*. It is stored with the reasons (`time_suspect`) and with the start that it claimed
  (`claimed_start_time_us`), and a metric counts it.
* A suspect start that lies outside those bounds is replaced by the arrival time, so the event is billed into the period
  in which it arrived. A start inside the bounds stays, even where the id or a duration is suspect.
* A negative duration becomes zero.

`AGE_MAX` is where a late event stops being plausible: a clock that starts in 1970 or on the day of its firmware looks
the same as a journal that nobody has sent for five weeks. Both are billed now rather than into a closed month.

Where metering's own clock is the wrong one, every event of the honest edges is suspect and billed at metering's time.
The marks say so afterwards; nothing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

CLOCK_SKEW_MAX: Final = timedelta(hours=1)
AGE_MAX: Final = timedelta(days=34)

START_IN_FUTURE: Final = "start_in_future"
START_IN_PAST: Final = "start_in_past"
ID_IN_FUTURE: Final = "id_in_future"
ID_IN_PAST: Final = "id_in_past"
NEGATIVE_DURATION: Final = "negative_duration"

_MICROSECOND: Final = timedelta(microseconds=1)
_SKEW_US_MAX: Final = CLOCK_SKEW_MAX // _MICROSECOND
_AGE_US_MAX: Final = AGE_MAX // _MICROSECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTimes:
    """What an event is stored with.

    Args:
        start_time_us: When it is billed, Unix microseconds.
        duration_us: Never negative.
        upstream_latency_us: Never negative.
        reasons: Why its own times are not believed, joined by commas.
    """

    start_time_us: int
    duration_us: int
    upstream_latency_us: int
    reasons: str


def are_believed(start_time_us: int, id_time_us: int | None, now_us: int) -> bool:
    """Tell whether an event's start, and its id where it tells a time, are plausible."""
    earliest_us, latest_us = now_us - _AGE_US_MAX, now_us + _SKEW_US_MAX
    return earliest_us <= start_time_us <= latest_us and (id_time_us is None or earliest_us <= id_time_us <= latest_us)


def is_before_memory(id_time_us: int | None, now_us: int) -> bool:
    """Tell whether an id claims to be so old that its first arrival may have been forgotten."""
    return id_time_us is not None and id_time_us < now_us - _AGE_US_MAX


def settle(
    *, start_time_us: int, id_time_us: int | None, duration_us: int, upstream_latency_us: int, now_us: int
) -> EventTimes:
    """Apply the rule to an event that is not believed.

    Args:
        start_time_us: As the event says.
        id_time_us: When its id was made; None where the id does not tell.
        duration_us: As the event says.
        upstream_latency_us: As the event says.
        now_us: The arrival, Unix microseconds.
    """
    reasons = []
    billed_us = start_time_us
    if start_time_us > now_us + _SKEW_US_MAX:
        reasons.append(START_IN_FUTURE)
        billed_us = now_us
    elif start_time_us < now_us - _AGE_US_MAX:
        reasons.append(START_IN_PAST)
        billed_us = now_us
    if id_time_us is not None and id_time_us > now_us + _SKEW_US_MAX:
        reasons.append(ID_IN_FUTURE)
    elif is_before_memory(id_time_us, now_us):
        reasons.append(ID_IN_PAST)
    if duration_us < 0 or upstream_latency_us < 0:
        reasons.append(NEGATIVE_DURATION)
    return EventTimes(
        start_time_us=billed_us,
        duration_us=max(0, duration_us),
        upstream_latency_us=max(0, upstream_latency_us),
        reasons=",".join(reasons),
    )
