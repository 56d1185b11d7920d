"""Calendar windows: which day and month of a time zone an instant falls into, and when they end.

Days are numbered from 1970-01-01, months from January of year 0. Both are integers that grow, so that "the next window"
and "an older one" are comparisons, and neither is ever 0 for an instant of this century.

A day lasts from its midnight to the next one in its zone: 23 to 25 hours where clocks are changed. A midnight that the
zone skips is the instant at which it skips it. A date that the zone skips (Apia, 2011-12-30) lasts for no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL: Final = _EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_US_PER_DAY: Final = 86_400_000_000
_US_PER_MS: Final = 1_000
_MONTHS_PER_YEAR: Final = 12
_DAYS_REMEMBERED_MAX: Final = 1_024
# The last day that `date` can tell the end of, whatever the zone.
TIME_US_MAX: Final = 253_370_764_800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarInstant:
    """An instant, the calendar windows that it falls into, and how long they last from then on."""

    time_us: int
    day: int
    month: int
    day_left_ms: int
    month_left_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Day:
    """A day of a zone, in Unix microseconds, and the month that it belongs to."""

    start_us: int
    end_us: int
    month: int
    month_start_us: int
    month_end_us: int


def calendar_instant(now: datetime, zone: tzinfo = UTC) -> CalendarInstant:
    """Return the windows that an aware instant falls into."""
    return calendar_instant_of((now - _EPOCH) // _MICROSECOND, zone)


def calendar_instant_of(time_us: int, zone: tzinfo = UTC) -> CalendarInstant:
    """Return the windows that an instant in Unix microseconds falls into."""
    number = _day_number(time_us, zone)
    day = _day(number, zone)
    return CalendarInstant(
        time_us=time_us,
        day=number,
        month=day.month,
        # Rounded up: a window that is reported as over must be over.
        day_left_ms=-((time_us - day.end_us) // _US_PER_MS),
        month_left_ms=-((time_us - day.month_end_us) // _US_PER_MS),
    )


def day_start(instant: CalendarInstant, zone: tzinfo = UTC) -> datetime:
    """Return the first instant of the day, in UTC."""
    return _EPOCH + timedelta(microseconds=_day(instant.day, zone).start_us)


def month_start(instant: CalendarInstant, zone: tzinfo = UTC) -> datetime:
    """Return the first instant of the month, in UTC."""
    return _EPOCH + timedelta(microseconds=_day(instant.day, zone).month_start_us)


def _day_number(time_us: int, zone: tzinfo) -> int:
    if zone is UTC:
        return time_us // _US_PER_DAY
    return (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).toordinal() - _EPOCH_ORDINAL


@lru_cache(maxsize=_DAYS_REMEMBERED_MAX)
def _day(number: int, zone: tzinfo) -> _Day:
    on = date.fromordinal(_EPOCH_ORDINAL + number)
    month = on.year * _MONTHS_PER_YEAR + on.month - 1
    return _Day(
        start_us=_midnight_us(on, zone),
        end_us=_midnight_us(on + timedelta(days=1), zone),
        month=month,
        month_start_us=_midnight_us(on.replace(day=1), zone),
        month_end_us=_midnight_us(_first_of(month + 1), zone),
    )


def _first_of(month: int) -> date:
    year, index = divmod(month, _MONTHS_PER_YEAR)
    return date(year, index + 1, 1)


def _midnight_us(on: date, zone: tzinfo) -> int:
    return (datetime(on.year, on.month, on.day, tzinfo=zone) - _EPOCH) // _MICROSECOND
