"""Guessing is slow, and nobody is kept out by somebody else's guesses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_gateway.callers import sign_ins as module
from graphql_gateway.callers.admission import AdmissionLimits
from graphql_gateway.callers.sign_ins import FAILURE_REMEMBERED_SECONDS, SignIns
from graphql_gateway.failure import Failure
from mesh.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER, OWNERS_ADDRESS = "owner@acme.example", "203.0.113.7"


def sign_ins(clock: ManualClock | None = None, **limits: int) -> SignIns:
    return SignIns(AdmissionLimits(**limits), monotonic=(clock or ManualClock(NOW)).monotonic)


def fail(tried: SignIns, address: str, email: str = OWNER) -> bool:
    """Fail once; say whether the attempt was made at all."""
    try:
        attempt = tried.begin(address, email)
    except Failure:
        return False
    tried.failed(attempt)
    return True


@given(guesses=st.lists(st.integers(0, 40), min_size=3, max_size=300))
def test_no_guesses_from_elsewhere_refuse_the_owner(guesses: list[int]) -> None:
    tried = sign_ins(sign_in_account_per_minute=2)
    for address in guesses:
        fail(tried, f"198.51.100.{address}")
    tried.succeeded(tried.begin(OWNERS_ADDRESS, OWNER))


def test_an_owner_who_signed_in_before_and_mistypes_is_not_kept_out_by_strangers() -> None:
    tried = sign_ins(sign_in_account_per_minute=2, sign_in_address_per_minute=3)
    tried.succeeded(tried.begin(OWNERS_ADDRESS, OWNER))
    for number in range(40):
        fail(tried, f"198.51.100.{number}")
    for number in range(10):
        fail(tried, OWNERS_ADDRESS, f"p{number}@b.example")
    assert fail(tried, OWNERS_ADDRESS)
    tried.succeeded(tried.begin(OWNERS_ADDRESS, OWNER))


def test_a_familiar_address_guesses_a_few_times_a_minute_too() -> None:
    tried = sign_ins(sign_in_pair_per_minute=3)
    tried.succeeded(tried.begin(OWNERS_ADDRESS, OWNER))
    assert sum(fail(tried, OWNERS_ADDRESS) for _ in range(10)) == 3


def test_an_address_guesses_at_one_account_a_few_times_a_minute_however_it_is_spelled() -> None:
    tried = sign_ins(sign_in_pair_per_minute=2)
    assert [fail(tried, "192.0.2.1", email) for email in ("a@b.example", " A@B.example", "a@b.example")] == [
        True,
        True,
        False,
    ]
    assert fail(tried, "192.0.2.1", "c@b.example")
    assert fail(tried, "192.0.2.2", "a@b.example")


def test_an_address_that_guesses_at_many_accounts_is_refused_and_told_until_when() -> None:
    tried = sign_ins(sign_in_address_per_minute=3)
    assert sum(fail(tried, "192.0.2.1", f"p{number}@b.example") for number in range(10)) == 3
    with pytest.raises(Failure) as caught:
        tried.begin("192.0.2.1", "p0@b.example")
    assert caught.value.metadata == {"limited_by": "sign_in_address"}
    assert caught.value.retry_after_seconds == pytest.approx(20.0)


def test_guesses_from_many_addresses_at_one_account_are_limited_together() -> None:
    clock = ManualClock(NOW)
    tried = sign_ins(clock, sign_in_account_per_minute=20)
    addresses = [f"198.51.100.{number}" for number in range(20)]
    made = sum(fail(tried, address) for _ in range(10) for address in addresses)
    assert made == 20
    clock.advance(30.0)
    assert sum(fail(tried, address) for _ in range(10) for address in addresses) == 10
    assert fail(tried, addresses[0], "other@acme.example")


def test_a_failure_is_forgotten_in_time() -> None:
    clock = ManualClock(NOW)
    tried = sign_ins(clock, sign_in_account_per_minute=1)
    assert fail(tried, "192.0.2.1")
    clock.advance(FAILURE_REMEMBERED_SECONDS)
    assert fail(tried, "192.0.2.2")
    assert fail(tried, "192.0.2.1"), "its failure is old and another address used the account's token up"


@given(parallel=st.integers(1, 200))
def test_parallel_guesses_get_no_further_than_guesses_in_a_row(parallel: int) -> None:
    tried, running = sign_ins(sign_in_pair_per_minute=5), []
    for _ in range(parallel):
        try:
            running.append(tried.begin("192.0.2.1", OWNER))
        except Failure:
            continue
    assert len(running) == min(parallel, 5)


def test_signing_in_rightly_uses_nothing_up() -> None:
    tried = sign_ins(sign_in_pair_per_minute=1, sign_in_address_per_minute=1, sign_in_account_per_minute=1)
    for _ in range(100):
        tried.succeeded(tried.begin(OWNERS_ADDRESS, OWNER))
    assert fail(tried, OWNERS_ADDRESS)
    assert not fail(tried, OWNERS_ADDRESS)


def test_what_names_nobody_is_counted_by_address_alone() -> None:
    tried = sign_ins(sign_in_address_per_minute=2, sign_in_pair_per_minute=1)
    assert [fail(tried, "192.0.2.1", "") for _ in range(3)] == [True, True, False]


def test_remembered_failures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILURES_MAX", 3)
    tried = sign_ins()
    for number in range(10):
        assert fail(tried, f"192.0.2.{number}")
    assert len(tried._failed_at_seconds) == 3
