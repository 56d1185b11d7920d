"""The gateway's own limits."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_gateway.callers.addresses import network_of
from graphql_gateway.callers.admission import Admission, AdmissionLimits
from graphql_gateway.callers.identity import ANONYMOUS, UNCHECKED, Identity, IdentityKind
from graphql_gateway.failure import Failure
from mesh.buckets import Buckets
from mesh.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def admission(clock: ManualClock, **limits: int) -> Admission:
    return Admission(AdmissionLimits(**limits), monotonic=clock.monotonic)


@given(
    per_minute=st.integers(1, 600),
    steps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_a_bucket_never_gives_more_than_its_size_and_its_refill(per_minute: int, steps: list[float]) -> None:
    clock = ManualClock(NOW)
    buckets = Buckets(per_minute, monotonic=clock.monotonic)
    taken = 0
    for step in steps:
        clock.advance(step)
        taken += buckets.take("x") == 0.0
    assert taken <= per_minute + sum(steps) * per_minute / 60 + 1e-6


def test_whoever_waits_as_long_as_told_is_served() -> None:
    clock = ManualClock(NOW)
    buckets = Buckets(6, monotonic=clock.monotonic)
    assert [buckets.take("x") for _ in range(6)] == [0.0] * 6
    wait_seconds = buckets.take("x")
    assert wait_seconds == pytest.approx(10.0)
    clock.advance(wait_seconds)
    assert buckets.take("x") == 0.0


def test_buckets_are_bounded_and_the_longest_unused_goes() -> None:
    clock = ManualClock(NOW)
    buckets = Buckets(1, monotonic=clock.monotonic, buckets_max=2)
    buckets.take("a")
    buckets.take("b")
    buckets.take("a")
    buckets.take("c")
    assert len(buckets) == 2
    assert buckets.take("a") > 0.0
    assert buckets.take("b") == 0.0


def test_an_address_is_limited_and_told_when_to_come_back() -> None:
    limited = admission(ManualClock(NOW), address_per_minute=2)
    limited.admit_address("192.0.2.1")
    limited.admit_address("192.0.2.1")
    limited.admit_address("192.0.2.2")
    with pytest.raises(Failure) as caught:
        limited.admit_address("192.0.2.1")
    assert (caught.value.reason, caught.value.http_status) == ("RATE_LIMITED", 429)
    assert caught.value.metadata == {"limited_by": "address"}
    assert caught.value.retry_after_seconds == pytest.approx(30.0)


def test_a_person_is_limited_from_everywhere_and_an_organization_through_everyone() -> None:
    limited = admission(ManualClock(NOW), principal_per_minute=2, organization_per_minute=3)
    organization = UUID(int=1)
    first = Identity(kind=IdentityKind.PERSON, subject="a", organization_id=organization)
    second = Identity(kind=IdentityKind.SERVICE_ACCOUNT, subject="b", organization_id=organization)
    limited.admit_identity(first)
    limited.admit_identity(first)
    with pytest.raises(Failure, match="RATE_LIMITED") as caught:
        limited.admit_identity(first)
    assert caught.value.metadata == {"limited_by": "principal"}
    limited.admit_identity(second)
    with pytest.raises(Failure) as caught:
        limited.admit_identity(second)
    assert caught.value.metadata == {"limited_by": "organization"}


def test_anonymous_callers_share_no_bucket_but_their_address() -> None:
    limited = admission(ManualClock(NOW), principal_per_minute=1, organization_per_minute=1)
    for _ in range(5):
        limited.admit_identity(ANONYMOUS)


def test_changes_are_limited_per_person_and_through_everyone_of_an_organization() -> None:
    limited = admission(ManualClock(NOW), change_principal_per_minute=2, change_organization_per_minute=3)
    organization = UUID(int=1)
    first = Identity(kind=IdentityKind.PERSON, subject="a", organization_id=organization)
    second = Identity(kind=IdentityKind.PERSON, subject="b", organization_id=organization)
    for _ in range(2):
        limited.admit_change(first, "192.0.2.1")
    with pytest.raises(Failure) as caught:
        limited.admit_change(first, "192.0.2.2")
    assert caught.value.metadata == {"limited_by": "change_principal"}
    assert caught.value.retry_after_seconds == pytest.approx(30.0)
    limited.admit_change(second, "192.0.2.1")
    with pytest.raises(Failure) as caught:
        limited.admit_change(second, "192.0.2.1")
    assert caught.value.metadata == {"limited_by": "change_organization"}
    stranger = Identity(kind=IdentityKind.PERSON, subject="c", organization_id=UUID(int=2))
    limited.admit_change(stranger, "192.0.2.1")


def test_changes_of_an_organization_have_a_cap_a_day() -> None:
    clock = ManualClock(NOW)
    limited = admission(clock, change_organization_per_day=5)
    person = Identity(kind=IdentityKind.PERSON, subject="a", organization_id=UUID(int=1))
    for _ in range(5):
        limited.admit_change(person, "192.0.2.1")
        clock.advance(60.0)
    with pytest.raises(Failure) as caught:
        limited.admit_change(person, "192.0.2.1")
    assert caught.value.metadata == {"limited_by": "change_organization_day"}
    assert caught.value.retry_after_seconds == pytest.approx(86_400 / 5 - 300)
    clock.advance(caught.value.retry_after_seconds)
    limited.admit_change(person, "192.0.2.1")


def test_changes_of_callers_that_cannot_be_checked_are_counted_by_address() -> None:
    limited = admission(ManualClock(NOW), change_principal_per_minute=1)
    limited.admit_change(UNCHECKED, "192.0.2.1")
    limited.admit_change(UNCHECKED, "192.0.2.2")
    with pytest.raises(Failure):
        limited.admit_change(UNCHECKED, "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8:1:2::1]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_are_counted_by_what_one_customer_line_has(address: str, network: str) -> None:
    assert network_of(address) == network
