"""What billing knows, as plain values. Amounts are in the currency's minor unit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.billing.periods import Period
from services.billing.rating import Line, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPlace:
    """Where a plan stands in the price list: cheapest first, then by name."""

    base_fee_minor: int
    plan_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One version of a plan: its price and its limits."""

    plan_id: str
    version: int
    name: str
    price: Price
    requests_per_minute: int
    requests_per_month_max: int | None

    @property
    def place(self) -> PlanPlace:
        """Return where it stands in the price list."""
        return PlanPlace(base_fee_minor=self.price.base_fee_minor, plan_id=self.plan_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubscription:
    """A subscription as it is asked for; `actor` is who asks."""

    organization_id: UUID
    plan_id: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """An organization's subscription to one version of a plan. `start_time` anchors its periods."""

    subscription_id: UUID
    organization_id: UUID
    plan_id: str
    plan_version: int
    policy_version: int
    start_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePreview:
    """The invoice as it would be if the period ended now."""

    organization_id: UUID
    plan_id: str
    currency_code: str
    period: Period
    lines: tuple[Line, ...]
    billable_units: int

    @property
    def total_minor(self) -> int:
        """Return the sum of the printed amounts."""
        return sum(line.amount_minor for line in self.lines)
