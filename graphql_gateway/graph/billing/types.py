"""Plans, subscriptions, invoices and money, as GraphQL shows them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry
from tollway.billing.v1 import billing_service_pb2 as billing

from graphql_gateway.graph.relay import Node, global_id
from graphql_gateway.graph.scalars import Decimal, Int64
from graphql_gateway.graph.times import from_timestamp


@strawberry.type(description="An amount of money, exact.")
class Money:
    """An exact amount in the minor units of its currency."""

    amount_minor: Int64 = strawberry.field(description="In the currency's minor unit.")
    currency_code: str = strawberry.field(description="ISO 4217.")

    @classmethod
    def from_proto(cls, proto: billing.Money) -> Money:
        """Return an amount."""
        return cls(amount_minor=Int64(proto.amount_minor), currency_code=proto.currency_code)


@strawberry.type(description="A plan on offer.")
class Plan(Node):
    """What an organization can subscribe to: the price, and what the price includes."""

    plan_id: str = strawberry.field(description="Stable name, for example starter.")
    name: str
    version: int
    base_fee: Money = strawberry.field(description="Owed once a period.")
    included_requests: Int64 | None = strawberry.field(description="Covered by the base fee; null: unlimited.")
    overage_unit_price: Decimal | None = strawberry.field(
        description="Price of one request above those, in major units; null where there is none."
    )
    requests_per_minute: Int64
    requests_per_month_max: Int64 | None = strawberry.field(description="Refused above; null: never.")

    @classmethod
    def from_proto(cls, proto: billing.Plan) -> Plan:
        """Read what billing says of a plan."""
        monthly_max = Int64(proto.requests_per_month_max) if proto.HasField("requests_per_month_max") else None
        return cls(
            id=global_id("Plan", proto.plan_id),
            plan_id=proto.plan_id,
            name=proto.name,
            version=proto.version,
            base_fee=Money.from_proto(proto.base_fee),
            included_requests=Int64(proto.included_requests) if proto.HasField("included_requests") else None,
            overage_unit_price=Decimal(proto.overage_unit_price) if proto.overage_unit_price else None,
            requests_per_minute=Int64(proto.requests_per_minute),
            requests_per_month_max=monthly_max,
        )


@strawberry.type(description="An organization's subscription.")
class Subscription:
    """The plan of an organization, and since when."""

    subscription_id: UUID
    organization_id: UUID
    plan_id: str
    plan_version: int
    start_time: datetime

    @classmethod
    def from_proto(cls, proto: billing.Subscription) -> Subscription:
        """Read what billing says of a subscription."""
        return cls(
            subscription_id=UUID(proto.subscription_id),
            organization_id=UUID(proto.organization_id),
            plan_id=proto.plan_id,
            plan_version=proto.plan_version,
            start_time=from_timestamp(proto.start_time),
        )


@strawberry.type(description="The subscription after it was created.")
class CreateSubscriptionPayload:
    """The answer of createSubscription."""

    subscription: Subscription


@strawberry.type(description="One charge.")
class InvoiceLine:
    """A line of an invoice."""

    description: str
    quantity: Decimal
    unit_price: Decimal = strawberry.field(description="Price of one, in major units.")
    amount: Money

    @classmethod
    def from_proto(cls, proto: billing.InvoiceLine) -> InvoiceLine:
        """Read what billing says of a line."""
        return cls(
            description=proto.description,
            quantity=Decimal(proto.quantity),
            unit_price=Decimal(proto.unit_price),
            amount=Money.from_proto(proto.amount),
        )


@strawberry.type(description="What the current period costs so far.")
class InvoicePreview:
    """What the current period costs so far, line by line."""

    organization_id: UUID
    plan_id: str
    period_start_time: datetime
    period_end_time: datetime
    lines: list[InvoiceLine] = strawberry.field(description="Charges; their amounts add up to the total.")
    total: Money
    billable_units: Int64 = strawberry.field(description="Cost units that are billed so far, as quotas count them.")

    @classmethod
    def from_proto(cls, proto: billing.InvoicePreview) -> InvoicePreview:
        """Read what billing says of the current period."""
        return cls(
            organization_id=UUID(proto.organization_id),
            plan_id=proto.plan_id,
            period_start_time=from_timestamp(proto.period_start_time),
            period_end_time=from_timestamp(proto.period_end_time),
            lines=[InvoiceLine.from_proto(line) for line in proto.lines],
            total=Money.from_proto(proto.total),
            billable_units=Int64(proto.billable_units),
        )
