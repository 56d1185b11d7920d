from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.calendar_windows import TIME_US_MAX, calendar_instant, calendar_instant_of, day_start, month_start

INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001 made aware here
    lambda naive: naive.replace(tzinfo=UTC)
)
# Half and quarter hours, midnights that are skipped and that come twice, a date that never was.
ZONES = st.sampled_from(
    [UTC]
    + [
        ZoneInfo(name)
        for name in (
            "Asia/Kathmandu",
            "America/Sao_Paulo",
            "Africa/Cairo",
            "America/Havana",
            "Europe/Berlin",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        )
    ]
)
MILLISECOND = timedelta(milliseconds=1)


def test_the_last_microsecond_of_february_belongs_to_february() -> None:
    instant = calendar_instant(datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    assert (instant.day_left_ms, instant.month_left_ms) == (1, 1)
    assert month_start(instant) == datetime(2028, 2, 1, tzinfo=UTC)
    assert instant.month == 2028 * 12 + 1


@given(INSTANTS, ZONES)
def test_a_window_holds_its_instant_and_is_over_exactly_when_it_says(now: datetime, zone: tzinfo) -> None:
    instant = calendar_instant(now, zone)
    for start, left_ms, number in (
        (day_start, instant.day_left_ms, lambda each: each.day),
        (month_start, instant.month_left_ms, lambda each: each.month),
    ):
        assert start(instant, zone) <= now
        assert left_ms > 0
        after = calendar_instant(now + left_ms * MILLISECOND, zone)
        before = calendar_instant(now + (left_ms - 1) * MILLISECOND, zone)
        assert number(before) == number(instant) < number(after)
        assert timedelta() <= now + left_ms * MILLISECOND - start(after, zone) < MILLISECOND


@given(INSTANTS)
def test_in_utc_the_next_window_has_the_next_number(now: datetime) -> None:
    instant = calendar_instant(now)
    assert calendar_instant(now + timedelta(milliseconds=instant.day_left_ms)).day == instant.day + 1
    assert calendar_instant(now + timedelta(milliseconds=instant.month_left_ms)).month == instant.month + 1


@given(ZONES)
def test_the_last_instant_that_is_taken_has_windows_in_every_zone(zone: tzinfo) -> None:
    assert calendar_instant_of(TIME_US_MAX, zone).day_left_ms > 0


@pytest.mark.parametrize(
    ("zone", "now", "hours_left"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        ("America/Havana", datetime(2026, 3, 8, 5, tzinfo=UTC), 23),
        ("Asia/Kathmandu", datetime(2026, 3, 8, 18, 15, tzinfo=UTC), 24),
    ],
)
def test_a_day_is_as_long_as_its_zone_makes_it(zone: str, now: datetime, hours_left: int) -> None:
    instant = calendar_instant(now, ZoneInfo(zone))
    assert day_start(instant, ZoneInfo(zone)) == now
    assert instant.day_left_ms == hours_left * 3_600_000
