"""Guessing is slowed down; nobody is locked out from elsewhere; names are not kept without bound."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.clock import ManualClock
from services.auth import throttle
from services.auth.throttle import Attempt, FailureBudget, SignInThrottle, network_of

OWNER, HOME, STRANGER = "owner@acme.example", "192.0.2.1", "203.0.113.9"


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


def fail(sign_in: SignInThrottle, account: str, address: str, times: int) -> int:
    """Fails and returns how many attempts were let through."""
    return sum(isinstance(sign_in.begin(account, address), Attempt) for _ in range(times))


def test_no_more_attempts_run_side_by_side_than_may_fail(clock: ManualClock) -> None:
    assert fail(SignInThrottle(clock=clock), OWNER, STRANGER, 150) == throttle.FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX


def test_what_succeeds_costs_nothing(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for _ in range(1_000):
        attempt = sign_in.begin(OWNER, HOME)
        assert isinstance(attempt, Attempt)
        sign_in.succeeded(attempt)


def test_an_address_that_tries_many_accounts_is_slowed_down(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    let_through = sum(fail(sign_in, f"{number}@acme.example", STRANGER, 1) for number in range(500))
    assert let_through == throttle.FAILURES_PER_ADDRESS_MAX


def test_an_account_that_many_addresses_try_is_slowed_down_to_one_guess_each(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for number in range(1_000):
        fail(sign_in, OWNER, f"198.51.{number // 250}.{number % 250}", 1)
    assert fail(sign_in, OWNER, "198.51.0.1", 1) == 0
    assert fail(sign_in, OWNER, "198.51.9.9", 5) == 1


def test_strangers_keep_nobody_out_who_comes_from_elsewhere(clock: ManualClock) -> None:
    sign_in = SignInThrottle(clock=clock)
    for number in range(1_000):
        fail(sign_in, OWNER, f"198.51.{number // 250}.{number % 250}", 20)
    attempt = sign_in.begin(OWNER, HOME)
    assert isinstance(attempt, Attempt)
    sign_in.succeeded(attempt)
    # A familiar address may even mistype: neither the account's nor the address's budget is asked.
    fail(sign_in, "somebody-else@acme.example", HOME, 20)
    for number in range(200):
        fail(sign_in, f"{number}@acme.example", HOME, 1)
    assert fail(sign_in, OWNER, HOME, 100) == throttle.FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("ipv4:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::ffff:2%5D", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("unix:", "unix:"),
    ],
)
def test_an_address_counts_as_what_one_customer_has(address: str, network: str) -> None:
    assert network_of(address) == network


BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["a@acme.example", "b@acme.example"]),
        st.sampled_from(["192.0.2.1", "192.0.2.2"]),
        st.integers(1, 60),
        st.booleans(),
        st.integers(0, 100),
    ),
    min_size=1,
    max_size=20,
)


@given(BATCHES)
def test_any_mix_of_parallel_attempts_verifies_no_more_wrong_passwords_than_the_budget(
    batches: list[tuple[str, str, int, bool, int]],
) -> None:
    clock = ManualClock(datetime(2024, 1, 1, tzinfo=UTC))
    sign_in, failed = SignInThrottle(clock=clock), Counter[tuple[str, str]]()
    for account, address, parallelism, first_is_right, seconds in batches:
        begun = [sign_in.begin(account, address) for _ in range(parallelism)]
        let_through = [attempt for attempt in begun if isinstance(attempt, Attempt)]
        if first_is_right and let_through:
            sign_in.succeeded(let_through.pop())
        failed[account, address] += len(let_through)
        clock.advance(seconds)
    refilled = clock.monotonic() * throttle.FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX / throttle.REFILL_SECONDS
    assert max(failed.values()) <= throttle.FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX + refilled


def test_names_are_bounded_and_the_oldest_goes_first(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "NAMES_MAX", 2)
    budget = FailureBudget(failures_max=1, clock=clock)
    for name in ("a", "b", "c"):
        budget.spend(name)
    assert [budget.wait_seconds(name) > 0 for name in ("a", "b", "c")] == [False, True, True]
