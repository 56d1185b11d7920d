from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.metering.weeks import week_number_of, week_of, week_of_number

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_weeks_start_on_monday_utc() -> None:
    assert week_of(datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)) == date(2026, 11, 16)
    assert week_of(datetime(2026, 11, 23, tzinfo=UTC)) == date(2026, 11, 23)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 made aware below
def test_the_number_and_the_date_of_a_week_agree(naive: datetime) -> None:
    instant = naive.replace(tzinfo=UTC)
    assert week_of_number(week_number_of((instant - EPOCH) // timedelta(microseconds=1))) == week_of(instant)
