"""Periods cover all time from the anchor on, and a short month does not make them drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.periods import ALIGNMENT, align, period_containing, period_start

instants = st.integers(946_684_800_000_000, 4_102_444_800_000_000).map(
    lambda time_us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
)


def test_month_end_anchors_clamp_and_never_drift() -> None:
    anchor = datetime(2024, 1, 31, 9, 15, tzinfo=UTC)
    starts = [period_start(anchor, index) for index in range(5)]
    assert [(start.month, start.day) for start in starts] == [(1, 31), (2, 29), (3, 31), (4, 30), (5, 31)]
    assert {(start.hour, start.minute) for start in starts} == {(9, 15)}


def test_a_period_ends_where_the_next_begins() -> None:
    anchor = datetime(2024, 1, 31, tzinfo=UTC)
    boundary = datetime(2024, 2, 29, tzinfo=UTC)
    assert period_containing(anchor, boundary - timedelta(microseconds=1)).end_time == boundary
    assert period_containing(anchor, boundary).start_time == boundary


@given(instants, instants)
def test_every_instant_lies_in_its_period(one: datetime, other: datetime) -> None:
    anchor, instant = min(one, other), max(one, other)
    period = period_containing(anchor, instant)
    assert period.start_time <= instant < period.end_time


@given(instants, st.integers(0, 600))
def test_periods_are_counted_from_the_anchor(anchor: datetime, index: int) -> None:
    period = period_containing(anchor, period_start(anchor, index))
    assert period.start_time == period_start(anchor, index)
    assert period.end_time == period_start(anchor, index + 1)
    assert period.start_time.day <= anchor.day


@given(instants)
def test_aligning_goes_to_the_quarter_hour_before(instant: datetime) -> None:
    aligned = align(instant)
    assert timedelta(0) <= instant - aligned < ALIGNMENT
    assert aligned.timestamp() % 900 == 0
    assert align(aligned) == aligned


def test_an_instant_before_the_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first period"):
        period_containing(datetime(2024, 1, 1, tzinfo=UTC), datetime(2023, 12, 31, tzinfo=UTC))


def test_zones_do_not_move_periods() -> None:
    east = timezone(timedelta(hours=5, minutes=45))
    anchor = datetime(2024, 1, 1, 0, 0, tzinfo=east)
    assert period_start(anchor, 0) == anchor
    assert period_start(anchor, 1) == datetime(2024, 1, 31, 18, 15, tzinfo=UTC)
