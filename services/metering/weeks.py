"""Weeks as partitions know them: they start on Monday, 00:00 UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

DAYS_PER_WEEK: Final = 7
_US_PER_DAY: Final = 86_400_000_000
# 1970-01-01 was a Thursday.
_EPOCH_DAYS_SINCE_MONDAY: Final = 3
_FIRST_MONDAY: Final = date(1969, 12, 29)


def week_number_of(time_us: int) -> int:
    """Return the number of the week that holds an instant (Unix microseconds). Plain integers, for the hot loop."""
    return (time_us // _US_PER_DAY + _EPOCH_DAYS_SINCE_MONDAY) // DAYS_PER_WEEK


def week_of_number(number: int) -> date:
    """Return the Monday of a numbered week."""
    return _FIRST_MONDAY + timedelta(days=DAYS_PER_WEEK * number)


def week_of(instant: datetime) -> date:
    """Return the Monday of the week that holds an instant."""
    day = instant.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())
