"""Chooses calendar windows: which UTC day and month an instant falls into, and how long they last.

Days are numbered from 1970-01-01, months from January of year 0. Both are integers that grow by one, so that "the next
window" and "an older one" are comparisons.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from services.ratelimit.model import CalendarInstant, WindowKind

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = _EPOCH.date()
_MICROSECOND: Final = timedelta(microseconds=1)
_US_PER_DAY: Final = 86_400_000_000
_US_PER_MS: Final = 1_000
_MONTHS_PER_YEAR: Final = 12


def calendar_instant(now: datetime) -> CalendarInstant:
    """Return the windows that an aware instant falls into."""
    return calendar_instant_of((now - _EPOCH) // _MICROSECOND)


def calendar_instant_of(time_us: int) -> CalendarInstant:
    """Return the windows that an instant in Unix microseconds falls into."""
    day = time_us // _US_PER_DAY
    month, next_month_day = _month_of(day)
    return CalendarInstant(
        time_us=time_us,
        day=day,
        month=month,
        # Rounded up: a window that is reported as over must be over.
        day_left_ms=-(-((day + 1) * _US_PER_DAY - time_us) // _US_PER_MS),
        month_left_ms=-(-(next_month_day * _US_PER_DAY - time_us) // _US_PER_MS),
    )


def window_start(instant: CalendarInstant, kind: WindowKind) -> datetime:
    """Return the first instant of the calendar window of a kind."""
    day = _EPOCH + timedelta(days=instant.day)
    return day if kind is WindowKind.CALENDAR_DAY else day.replace(day=1)


def window_id(instant: CalendarInstant, kind: WindowKind) -> int:
    """Return the number of the calendar window of a kind."""
    return instant.day if kind is WindowKind.CALENDAR_DAY else instant.month


@lru_cache(maxsize=64)
def _month_of(day: int) -> tuple[int, int]:
    """Return the number of the month that holds a day, and the first day of the next one."""
    on = _EPOCH_DAY + timedelta(days=day)
    month = on.year * _MONTHS_PER_YEAR + on.month - 1
    year, index = divmod(month + 1, _MONTHS_PER_YEAR)
    return month, (date(year, index + 1, 1) - _EPOCH_DAY).days
