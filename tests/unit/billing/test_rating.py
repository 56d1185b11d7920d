"""Money is exact and every printed column adds up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.rating import Price, exponent, rate, to_major, to_minor

STARTER = Price(currency_code="USD", base_fee_minor=1_000, included_requests=10_000, overage_unit_price=Decimal("0.01"))
FREE = Price(currency_code="USD", base_fee_minor=0, included_requests=1_000, overage_unit_price=None)
PRO = Price(currency_code="USD", base_fee_minor=5_000, included_requests=None, overage_unit_price=None)

requests = st.integers(0, 10**15)
prices = st.builds(
    Price,
    currency_code=st.sampled_from(["USD", "JPY", "KWD"]),
    base_fee_minor=st.integers(0, 10**12),
    included_requests=st.integers(0, 10**12),
    overage_unit_price=st.decimals("0", "1000", places=9),
)


def total(price: Price, count: int) -> int:
    return sum(line.amount_minor for line in rate(price, count))


@pytest.mark.parametrize(
    ("price", "count", "minor"),
    [
        (STARTER, 0, 1_000),
        (STARTER, 10_000, 1_000),
        (STARTER, 10_001, 1_001),
        (STARTER, 15_000, 6_000),
        (FREE, 1_000, 0),
        (FREE, 1_003, 0),
        (PRO, 10**9, 5_000),
    ],
)
def test_plans_cost_what_the_price_list_says(price: Price, count: int, minor: int) -> None:
    assert total(price, count) == minor


def test_lines_of_starter_can_be_checked_by_hand() -> None:
    base, included, above = rate(STARTER, 15_000)
    assert (base.quantity, base.unit_price, base.amount_minor) == (1, Decimal("10.00"), 1_000)
    assert (included.quantity, included.amount_minor) == (10_000, 0)
    assert (above.quantity, above.unit_price, above.amount_minor) == (5_000, Decimal("0.01"), 5_000)


@given(prices, requests)
def test_every_line_is_quantity_times_price_rounded_once(price: Price, count: int) -> None:
    for line in rate(price, count):
        exact = Fraction(line.quantity) * Fraction(line.unit_price) * 10 ** exponent(price.currency_code)
        assert abs(Fraction(line.amount_minor) - exact) <= Fraction(1, 2)


@given(prices, requests)
def test_every_request_is_on_exactly_one_line(price: Price, count: int) -> None:
    assert sum(line.quantity for line in rate(price, count)[1:]) == count


@given(prices, requests, requests)
def test_more_requests_never_cost_less(price: Price, one: int, other: int) -> None:
    assert total(price, min(one, other)) <= total(price, max(one, other))


@given(st.integers(-(10**18), 10**18), st.sampled_from(["USD", "JPY", "KWD"]))
def test_minor_units_round_trip(amount_minor: int, currency_code: str) -> None:
    assert to_minor(to_major(amount_minor, currency_code), currency_code) == amount_minor


@pytest.mark.parametrize(("major", "minor"), [("0.005", 1), ("0.0049", 0), ("-0.005", -1), ("1.015", 102)])
def test_halves_are_rounded_away_from_zero(major: str, minor: int) -> None:
    assert to_minor(Decimal(major), "USD") == minor


def test_a_negative_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        rate(STARTER, -1)
