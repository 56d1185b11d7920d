"""Usage, limits, plans and money, as GraphQL shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal as ExactDecimal
from enum import Enum
from uuid import UUID

import strawberry
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.graph.account_types import ApiKey, from_timestamp
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.relay import Node, global_id
from graphql_gateway.graph.scalars import Decimal, Int64


@strawberry.enum(description="Width of a row in time.")
class Granularity(Enum):
    """Numbers as in the contract; RANGE is one row for everything."""

    RANGE = metering.GRANULARITY_UNSPECIFIED
    QUARTER_HOUR = metering.GRANULARITY_QUARTER_HOUR
    HOUR = metering.GRANULARITY_HOUR
    DAY = metering.GRANULARITY_DAY


@strawberry.enum(description="A dimension of usage.")
class Dimension(Enum):
    """Numbers as in the contract."""

    API_KEY = metering.DIMENSION_API_KEY
    ROUTE = metering.DIMENSION_ROUTE
    STATUS_CLASS = metering.DIMENSION_STATUS_CLASS


@strawberry.enum(description="How a limit refills.")
class WindowKind(Enum):
    """Numbers as in the contract."""

    TOKEN_BUCKET = ratelimit.WINDOW_KIND_TOKEN_BUCKET
    CALENDAR_DAY = ratelimit.WINDOW_KIND_CALENDAR_DAY
    CALENDAR_MONTH = ratelimit.WINDOW_KIND_CALENDAR_MONTH


@strawberry.enum(description="Whose requests share a limit.")
class WindowScope(Enum):
    """Numbers as in the contract."""

    ORGANIZATION = ratelimit.WINDOW_SCOPE_ORGANIZATION
    API_KEY = ratelimit.WINDOW_SCOPE_API_KEY
    ROUTE = ratelimit.WINDOW_SCOPE_ROUTE


@strawberry.type(description="An amount of money, exact.")
class Money:
    """Money."""

    amount_minor: Int64 = strawberry.field(description="In the currency's minor unit.")
    currency_code: str = strawberry.field(description="ISO 4217.")

    @classmethod
    def from_proto(cls, proto: billing.Money) -> Money:
        """Return an amount."""
        return cls(amount_minor=Int64(proto.amount_minor), currency_code=proto.currency_code)


@strawberry.type(description="Sums of requests.")
class UsageTotals:
    """Sums over all rows."""

    request_count: Int64 = strawberry.field(description="All requests with a live key.")
    billable_count: Int64 = strawberry.field(description="Requests that are billed.")
    billable_units: Decimal = strawberry.field(description="Cost units that are billed.")
    test_count: Int64 = strawberry.field(description="Requests with a test key; in no other figure.")

    @classmethod
    def from_rows(cls, rows: Sequence[metering.UsageRow]) -> UsageTotals:
        """Add rows up, exactly."""
        units = sum((ExactDecimal(row.billable_units or "0") for row in rows), ExactDecimal(0))
        return cls(
            request_count=Int64(sum(row.request_count for row in rows)),
            billable_count=Int64(sum(row.billable_count for row in rows)),
            billable_units=Decimal(format(units, "f")),
            test_count=Int64(sum(row.test_count for row in rows)),
        )


@strawberry.type(description="One sum.")
class UsageRow:
    """A row of usage."""

    start: datetime = strawberry.field(description="Start of the row's time.")
    group: list[str] = strawberry.field(description="Values of the dimensions, in the order of groupBy.")
    request_count: Int64
    billable_count: Int64
    billable_units: Decimal
    test_count: Int64
    key_address: strawberry.Private[tuple[UUID, UUID] | None]

    @field("The API key, where usage is grouped by it.")
    async def api_key(self, info: Info) -> ApiKey | None:
        """Look the key up; all rows share the look-up."""
        if self.key_address is None:
            return None
        found = await info.context.loaders.api_keys.load(self.key_address)
        return ApiKey.from_proto(found) if found is not None else None

    @classmethod
    def from_proto(cls, proto: metering.UsageRow, organization_id: UUID, key_index: int | None) -> UsageRow:
        """Return a row; `key_index` says which of its dimensions is the API key."""
        key_id = proto.group[key_index] if key_index is not None else ""
        return cls(
            start=from_timestamp(proto.start_time),
            group=list(proto.group),
            request_count=Int64(proto.request_count),
            billable_count=Int64(proto.billable_count),
            billable_units=Decimal(proto.billable_units or "0"),
            test_count=Int64(proto.test_count),
            key_address=(organization_id, UUID(key_id)) if key_id else None,
        )


@strawberry.type(description="Usage of an organization over a range.")
class Usage:
    """Usage."""

    organization_id: UUID
    start: datetime
    end: datetime
    rows: list[UsageRow] = strawberry.field(description="By time, then by dimensions; none without requests.")
    totals: UsageTotals


@strawberry.type(description="A plan on offer.")
class Plan(Node):
    """A plan."""

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
        """Return a plan."""
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
    """A subscription."""

    subscription_id: UUID
    organization_id: UUID
    plan_id: str
    plan_version: int
    start_time: datetime

    @classmethod
    def from_proto(cls, proto: billing.Subscription) -> Subscription:
        """Return a subscription."""
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
        """Return a line."""
        return cls(
            description=proto.description,
            quantity=Decimal(proto.quantity),
            unit_price=Decimal(proto.unit_price),
            amount=Money.from_proto(proto.amount),
        )


@strawberry.type(description="What the current period costs so far.")
class InvoicePreview:
    """An invoice preview."""

    organization_id: UUID
    plan_id: str
    period_start_time: datetime
    period_end_time: datetime
    lines: list[InvoiceLine] = strawberry.field(description="Charges; their amounts add up to the total.")
    total: Money
    billable_requests: Int64

    @classmethod
    def from_proto(cls, proto: billing.InvoicePreview) -> InvoicePreview:
        """Return a preview."""
        return cls(
            organization_id=UUID(proto.organization_id),
            plan_id=proto.plan_id,
            period_start_time=from_timestamp(proto.period_start_time),
            period_end_time=from_timestamp(proto.period_end_time),
            lines=[InvoiceLine.from_proto(line) for line in proto.lines],
            total=Money.from_proto(proto.total),
            billable_requests=Int64(proto.billable_requests),
        )


@strawberry.type(description="One limit.")
class Window:
    """A window of the limiter."""

    name: str
    kind: WindowKind
    limit: Int64 = strawberry.field(description="Units that fit.")
    period_seconds: Int64 | None = strawberry.field(description="Seconds in which an empty bucket fills.")
    scope: WindowScope
    counts_billable_only: bool

    @classmethod
    def from_proto(cls, proto: ratelimit.Window) -> Window:
        """Return a limit."""
        return cls(
            name=proto.name,
            kind=WindowKind(proto.kind),
            limit=Int64(proto.limit),
            period_seconds=Int64(proto.period_seconds) if proto.period_seconds else None,
            scope=WindowScope(proto.scope),
            counts_billable_only=proto.counts_billable_only,
        )


@strawberry.type(description="The limits in force.")
class Limits:
    """The limits of an organization."""

    organization_id: UUID
    version: Int64
    windows: list[Window] = strawberry.field(description="All of these must have room.")

    @classmethod
    def from_proto(cls, proto: ratelimit.Policy) -> Limits:
        """Return limits."""
        return cls(
            organization_id=UUID(proto.organization_id),
            version=Int64(proto.version),
            windows=[Window.from_proto(window) for window in proto.windows],
        )
