"""Guessing is slowed down; nobody is locked out from elsewhere; names are not kept without bound."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mesh.clock import ManualClock
from services.auth import throttle
from services.auth.throttle import FailureBudget, SignInThrottle


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2024, 1, 1, tzinfo=UTC))


def test_a_budget_is_spent_and_refills(clock: ManualClock) -> None:
    budget = FailureBudget(failures_max=3, clock=clock, refill_seconds=30)
    for _ in range(3):
        assert budget.wait_seconds("a") == 0
        budget.spend("a")
    assert budget.wait_seconds("a") == pytest.approx(10)
    assert budget.wait_seconds("b") == 0
    clock.advance(10)
    assert budget.wait_seconds("a") == 0
    budget.spend("a")
    assert budget.wait_seconds("a") == pytest.approx(10)


def test_a_stranger_who_fails_does_not_lock_the_owner_out(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for _ in range(throttle.FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX):
        sign_in.note_failure("owner@acme.example", "203.0.113.9")
    assert sign_in.wait_seconds("owner@acme.example", "203.0.113.9") > 0
    assert sign_in.wait_seconds("owner@acme.example", "192.0.2.1") == 0


def test_an_address_that_tries_many_accounts_is_slowed_down(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for number in range(throttle.FAILURES_PER_ADDRESS_MAX):
        sign_in.note_failure(f"{number}@acme.example", "203.0.113.9")
    assert sign_in.wait_seconds("new@acme.example", "203.0.113.9") > 0


def test_an_account_that_many_addresses_try_is_slowed_down(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for number in range(throttle.FAILURES_PER_ACCOUNT_MAX):
        sign_in.note_failure("owner@acme.example", f"192.0.2.{number}")
    assert sign_in.wait_seconds("owner@acme.example", "203.0.113.9") > 0


def test_names_are_bounded_and_the_oldest_goes_first(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "NAMES_MAX", 2)
    budget = FailureBudget(failures_max=1, clock=clock)
    for name in ("a", "b", "c"):
        budget.spend(name)
    assert [budget.wait_seconds(name) > 0 for name in ("a", "b", "c")] == [False, True, True]
