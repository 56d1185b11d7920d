"""Prices usage: (price, quantity) in, lines out. Pure, exact, and the only place where money is computed.

A price is a base fee, a number of requests that it covers, and a price for each request above those. A request counts
as often as it costs units, here as in every quota (`contract/outcomes.py`). Quantities and
unit prices are exact decimals; each line is quantity x unit price, rounded once to the currency's minor unit, half away
from zero, and the total is the sum of the rounded lines, so every printed column adds up. Where requests above the
included ones are refused, or nothing is above them because there is no bound, they have no price and no line with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final

_ONE: Final = Decimal(1)
# Far more digits than a bigint times a price has, so that only the one rounding ever rounds.
_EXACT: Final = Context(prec=100)
_EXPONENT_DEFAULT: Final = 2
_WITHOUT_MINOR_UNIT: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV"}
    | {"XAF", "XOF", "XPF"}
)
_WITH_THREE_DIGITS: Final = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a period costs.

    `included_requests` None means without bound; `overage_unit_price` (major units) None means that no request is
    charged above the included ones.
    """

    currency_code: str
    base_fee_minor: int
    included_requests: int | None
    overage_unit_price: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One charge. `unit_price` is in major units."""

    description: str
    quantity: Decimal
    unit_price: Decimal
    amount_minor: int


def rate(price: Price, billable_units: int) -> tuple[Line, ...]:
    """Return the lines of a period.

    Args:
        price: What the plan's version says.
        billable_units: Cost units of the period that are billed (`contract/outcomes.py`), not negative.

    Raises:
        ValueError: The quantity is negative.
    """
    if billable_units < 0:
        raise ValueError("a quantity cannot be negative")
    included, above = _split(price, billable_units)
    lines = [_line(price, "Base fee", _ONE, to_major(price.base_fee_minor, price.currency_code))]
    if included:
        lines.append(_line(price, "Requests included", Decimal(included), Decimal(0)))
    if above and price.overage_unit_price is not None:
        description = f"Requests above {price.included_requests:,}"
        lines.append(_line(price, description, Decimal(above), price.overage_unit_price))
    return tuple(lines)


def to_minor(amount_major: Decimal, currency_code: str) -> int:
    """Round an amount to the currency's minor unit, half away from zero."""
    scaled = amount_major.scaleb(exponent(currency_code), _EXACT)
    return int(scaled.quantize(_ONE, ROUND_HALF_UP, _EXACT))


def to_major(amount_minor: int, currency_code: str) -> Decimal:
    """Return an amount in the currency's major unit, exactly."""
    return Decimal(amount_minor).scaleb(-exponent(currency_code), _EXACT)


def exponent(currency_code: str) -> int:
    """Return the digits of a currency's minor unit (ISO 4217)."""
    if currency_code in _WITHOUT_MINOR_UNIT:
        return 0
    return 3 if currency_code in _WITH_THREE_DIGITS else _EXPONENT_DEFAULT


def _split(price: Price, billable_units: int) -> tuple[int, int]:
    if price.included_requests is None or price.overage_unit_price is None:
        return billable_units, 0
    included = min(billable_units, price.included_requests)
    return included, billable_units - included


def _line(price: Price, description: str, quantity: Decimal, unit_price: Decimal) -> Line:
    amount = _EXACT.multiply(quantity, unit_price)
    return Line(
        description=description,
        quantity=quantity,
        unit_price=unit_price,
        amount_minor=to_minor(amount, price.currency_code),
    )
