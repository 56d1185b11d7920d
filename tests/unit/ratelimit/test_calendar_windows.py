from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.ratelimit.calendar_windows import calendar_instant, window_id, window_start
from services.ratelimit.model import WindowKind

INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001 made aware here
    lambda naive: naive.replace(tzinfo=UTC)
)


def test_the_last_microsecond_of_february_belongs_to_february() -> None:
    instant = calendar_instant(datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    assert (instant.day_left_ms, instant.month_left_ms) == (1, 1)
    assert window_start(instant, WindowKind.CALENDAR_MONTH) == datetime(2028, 2, 1, tzinfo=UTC)
    assert window_id(instant, WindowKind.CALENDAR_MONTH) == 2028 * 12 + 1


@given(INSTANTS)
def test_a_window_holds_its_instant_and_the_next_one_has_the_next_number(now: datetime) -> None:
    instant = calendar_instant(now)
    for kind, left_ms in (
        (WindowKind.CALENDAR_DAY, instant.day_left_ms),
        (WindowKind.CALENDAR_MONTH, instant.month_left_ms),
    ):
        assert window_start(instant, kind) <= now
        after = calendar_instant(now + timedelta(milliseconds=left_ms))
        assert window_id(after, kind) == window_id(instant, kind) + 1
        assert (
            timedelta() <= now + timedelta(milliseconds=left_ms) - window_start(after, kind) < timedelta(milliseconds=1)
        )
