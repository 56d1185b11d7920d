from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract import windows
from contract.calendar_windows import calendar_instant_of
from contract.windows import Window, WindowKind, WindowScope

DECIDE = Path(__file__).resolve().parents[3] / "services" / "ratelimit" / "decide.lua"
LIMITS, PERIODS_MS = st.integers(1, 10**6), st.integers(1, 10**7)
CALENDAR = [WindowKind.CALENDAR_DAY, WindowKind.CALENDAR_MONTH]


def window(kind: WindowKind, limit: int = 60, period_seconds: int = 60) -> Window:
    return Window(
        name="w",
        kind=kind,
        scope=WindowScope.ORGANIZATION,
        limit=limit,
        period_seconds=period_seconds,
        counts_billable_only=False,
    )


def test_kinds_and_scopes_are_the_protos() -> None:
    assert {f"WINDOW_KIND_{kind.name}": kind.value for kind in WindowKind} == {
        name: number for name, number in pb.WindowKind.items() if number
    }
    assert {f"WINDOW_SCOPE_{scope.name}": scope.value for scope in WindowScope} == {
        name: number for name, number in pb.WindowScope.items() if number
    }


def test_the_script_is_told_every_kind_and_knows_no_number_of_its_own() -> None:
    told, script = windows.lua_constants(), DECIDE.read_text(encoding="utf-8")
    assert "local TOKEN_BUCKET, CALENDAR_DAY, CALENDAR_MONTH, SLIDING = 1, 2, 3, 4\n" in told
    assert "[TOKEN_BUCKET] = 1, [CALENDAR_DAY] = 3, [CALENDAR_MONTH] = 3, [SLIDING] = 34" in told
    assert re.search(r"kind\)? *[=~]= *[0-9]", script) is None
    assert re.search(r"local [A-Z_, ]*(BUCKET|CALENDAR)", script) is None


@given(st.integers(0, 10**9), LIMITS, PERIODS_MS, st.lists(st.integers(0, 10**6), max_size=5))
def test_a_debt_shrinks_by_the_limit_per_millisecond_however_it_is_looked_at(
    debt: int, limit: int, period_ms: int, pauses_ms: list[int]
) -> None:
    at_once = windows.debt_after(debt, limit, period_ms, sum(pauses_ms))
    by_steps = min(debt, limit * period_ms)
    for pause_ms in pauses_ms:
        by_steps = windows.debt_after(by_steps, limit, period_ms, pause_ms)
    assert by_steps == (at_once if pauses_ms else by_steps)


@given(st.integers(0, 10**12), LIMITS, PERIODS_MS, st.integers(1, 100))
def test_a_cost_fits_exactly_when_it_was_said(debt: int, limit: int, period_ms: int, cost: int) -> None:
    debt, cost = min(debt, limit * period_ms), min(cost, limit)
    wait_ms = windows.bucket_wait_ms(debt, limit, period_ms, cost)
    assert windows.bucket_left(windows.debt_after(debt, limit, period_ms, wait_ms), limit, period_ms) >= cost
    if wait_ms:
        assert windows.bucket_left(windows.debt_after(debt, limit, period_ms, wait_ms - 1), limit, period_ms) < cost


@given(st.integers(0, 10**12), st.integers(1, 10**5), st.integers(1, 3_600))
def test_more_quota_comes_exactly_when_it_is_said(debt: int, limit: int, period_seconds: int) -> None:
    described = window(WindowKind.TOKEN_BUCKET, limit, period_seconds)
    debt = min(debt, limit * described.period_ms)
    remaining = windows.bucket_left(debt, limit, described.period_ms)
    told_ms = windows.more_ms(limit, windows.refill_ms(described), remaining, windows.bucket_whole_ms(debt, limit))
    exact_ms = Fraction(max(0, debt - (limit - remaining - 1) * described.period_ms), limit) if debt else Fraction()
    assert exact_ms <= told_ms < exact_ms + 2


@given(st.integers(1, 10**5), st.integers(1, 3_600), st.data())
def test_what_is_told_of_a_share_leads_back_to_its_next_unit(
    limit: int, period_seconds: int, data: st.DataObject
) -> None:
    described = window(WindowKind.TOKEN_BUCKET, limit, period_seconds)
    remaining, next_ms = data.draw(st.integers(0, limit - 1)), data.draw(st.integers(0, 10**6))
    whole_ms = windows.whole_ms_after(limit, described.period_ms, remaining, next_ms)
    assert windows.more_ms(limit, described.period_ms, remaining, whole_ms) == next_ms


@pytest.mark.parametrize("kind", CALENDAR)
def test_more_of_a_calendar_window_comes_at_its_end(kind: WindowKind) -> None:
    assert windows.more_ms(60, windows.refill_ms(window(kind)), 3, 86_400_000) == 86_400_000


def test_only_calendar_kinds_have_a_calendar() -> None:
    instant = calendar_instant_of(1_790_000_000_000_000)
    assert [windows.calendar_window_id(kind, instant) for kind in CALENDAR] == [instant.day, instant.month]
    assert [windows.calendar_left_ms(kind, instant) for kind in CALENDAR] == [
        instant.day_left_ms,
        instant.month_left_ms,
    ]
    for ask in (windows.calendar_window_id, windows.calendar_left_ms, windows.calendar_window_start):
        for kind in (WindowKind.TOKEN_BUCKET, WindowKind.SLIDING):
            with pytest.raises(ValueError, match="no calendar"):
                ask(kind, instant)


@given(
    st.integers(1, 40),
    st.sampled_from([1_000, 7_000, 60_000, 3_600_000]),
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 5)), max_size=40),
)
def test_no_interval_of_one_period_holds_more_than_a_sliding_limit_and_units_come_back_a_slice_late_at_most(
    limit: int, period_ms: int, requests: list[tuple[int, int]]
) -> None:
    slices, now_ms, admitted = windows.Slices(), 1_790_000_000_000, list[tuple[int, int]]()
    for pause_ms, cost in requests:
        now_ms += pause_ms
        slices.advance(now_ms, period_ms)
        if slices.total() + cost <= limit:
            slices.take(cost)
            admitted.append((now_ms, cost))
            assert sum(units for at_ms, units in admitted if now_ms - at_ms < period_ms) <= limit
        else:
            late_ms = period_ms + Fraction(period_ms, windows.SLICES) + 1
            assert sum(units for at_ms, units in admitted if now_ms - at_ms < late_ms) + cost > limit


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 9)), min_size=1, max_size=20), st.integers(1, 60))
def test_units_of_a_sliding_window_are_back_exactly_when_it_is_said(taken: list[tuple[int, int]], wanted: int) -> None:
    slices, now_ms = windows.Slices(), 1_790_000_000_000
    for pause_ms, units in taken:
        now_ms += pause_ms
        slices.advance(now_ms, 7_000)
        slices.take(units)
    wanted = min(wanted, slices.total())
    goal = slices.total() - wanted
    back_ms = slices.back_ms(wanted, 7_000)
    slices.advance(back_ms - 1, 7_000)
    assert slices.total() > goal
    slices.advance(back_ms, 7_000)
    assert slices.total() <= goal
