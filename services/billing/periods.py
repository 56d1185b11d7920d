"""Billing periods: months counted from the instant at which a subscription started.

Period n begins n months after the anchor, on the anchor's day of the month at the anchor's time of day (UTC). A month
that has no such day takes its last one. Every period is counted from the anchor and never from the period before, so a
short month does not pull later ones forward: 31 January, 29 February, 31 March. Periods are half-open: the instant at
which one ends belongs to the next, and they cover all time from the anchor on without gap or overlap.

Usage is summed in quarter hours, so an anchor is cut down to one: a subscription made at 10:07 starts at 10:00, and
what the organization used in those seven minutes falls into its first period.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

ALIGNMENT: Final = timedelta(minutes=15)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start_time`, included, to `end_time`, excluded."""

    start_time: datetime
    end_time: datetime


def align(instant: datetime) -> datetime:
    """Return the last quarter hour (UTC) that is not after an instant."""
    return instant.astimezone(UTC) - (instant - _EPOCH) % ALIGNMENT


def period_start(anchor: datetime, index: int) -> datetime:
    """Return the instant at which period `index` begins; 0 is the anchor itself.

    Args:
        anchor: Aware; taken in UTC.
        index: Months since the anchor.
    """
    anchor = anchor.astimezone(UTC)
    years, month0 = divmod(anchor.month - 1 + index, 12)
    year, month = anchor.year + years, month0 + 1
    day = min(anchor.day, calendar.monthrange(year, month)[1])
    return anchor.replace(year=year, month=month, day=day)


def period_containing(anchor: datetime, instant: datetime) -> Period:
    """Return the period that an instant lies in.

    Raises:
        ValueError: The instant is before the anchor.
    """
    anchor, instant = anchor.astimezone(UTC), instant.astimezone(UTC)
    if instant < anchor:
        raise ValueError(f"{instant} is before the first period, which begins at {anchor}")
    index = (instant.year - anchor.year) * 12 + instant.month - anchor.month
    # In the month of the instant its period may not have begun yet.
    if period_start(anchor, index) > instant:
        index -= 1
    return Period(start_time=period_start(anchor, index), end_time=period_start(anchor, index + 1))
