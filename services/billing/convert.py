"""Between protobuf and billing's values."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from google.protobuf import timestamp_pb2
from tollway.billing.v1 import billing_service_pb2 as pb
from tollway.metering.v1 import metering_service_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2

from mesh.rpc.errors import Violations
from services.billing.model import InvoicePreview, Plan, Subscription
from services.billing.periods import Period
from services.billing.rating import Line

PLAN_ID_LENGTH_MAX: Final = 63
MINUTE_SECONDS: Final = 60


def to_plan(plan: Plan) -> pb.Plan:
    """Convert a plan."""
    price = plan.price
    return pb.Plan(
        plan_id=plan.plan_id,
        name=plan.name,
        version=plan.version,
        base_fee=pb.Money(amount_minor=price.base_fee_minor, currency_code=price.currency_code),
        included_requests=price.included_requests,
        overage_unit_price=to_decimal(price.overage_unit_price) if price.overage_unit_price is not None else "",
        requests_per_minute=plan.requests_per_minute,
        requests_per_month_max=plan.requests_per_month_max,
    )


def to_subscription(subscription: Subscription) -> pb.Subscription:
    """Convert a subscription."""
    return pb.Subscription(
        subscription_id=str(subscription.subscription_id),
        organization_id=str(subscription.organization_id),
        plan_id=subscription.plan_id,
        plan_version=subscription.plan_version,
        start_time=to_timestamp(subscription.start_time),
    )


def to_preview(preview: InvoicePreview) -> pb.InvoicePreview:
    """Convert a preview."""
    return pb.InvoicePreview(
        organization_id=str(preview.organization_id),
        plan_id=preview.plan_id,
        period_start_time=to_timestamp(preview.period.start_time),
        period_end_time=to_timestamp(preview.period.end_time),
        lines=[_to_line(line, preview.currency_code) for line in preview.lines],
        total=pb.Money(amount_minor=preview.total_minor, currency_code=preview.currency_code),
        billable_requests=preview.billable_requests,
    )


def to_usage_request(organization_id: UUID, period: Period) -> metering_service_pb2.QueryUsageRequest:
    """Ask for one row with everything in a period."""
    return metering_service_pb2.QueryUsageRequest(
        organization_id=str(organization_id),
        start_time=to_timestamp(period.start_time),
        end_time=to_timestamp(period.end_time),
    )


def to_policy(plan: Plan, *, organization_id: UUID, version: int) -> ratelimit_service_pb2.Policy:
    """Return a plan's limits: a minute's rate that may come at once and, where there is one, the month's quota."""
    windows = [
        ratelimit_service_pb2.Window(
            name="burst",
            kind=ratelimit_service_pb2.WINDOW_KIND_TOKEN_BUCKET,
            limit=plan.requests_per_minute,
            period_seconds=MINUTE_SECONDS,
            scope=ratelimit_service_pb2.WINDOW_SCOPE_ORGANIZATION,
        )
    ]
    if plan.requests_per_month_max is not None:
        windows.append(
            ratelimit_service_pb2.Window(
                name="month",
                kind=ratelimit_service_pb2.WINDOW_KIND_CALENDAR_MONTH,
                limit=plan.requests_per_month_max,
                scope=ratelimit_service_pb2.WINDOW_SCOPE_ORGANIZATION,
                counts_billable_only=True,
            )
        )
    return ratelimit_service_pb2.Policy(organization_id=str(organization_id), version=version, windows=windows)


def to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """Convert an instant."""
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def to_decimal(value: Decimal) -> str:
    """Write a decimal without an exponent."""
    return f"{value:f}"


def from_create_subscription(request: pb.CreateSubscriptionRequest) -> tuple[UUID, str]:
    """Check a request and return organization and plan."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    right = 0 < len(request.plan_id) <= PLAN_ID_LENGTH_MAX
    violations.check(right, "plan_id", f"must have 1 to {PLAN_ID_LENGTH_MAX} characters")
    violations.raise_if_any()
    return organization_id, request.plan_id


def _to_line(line: Line, currency_code: str) -> pb.InvoiceLine:
    return pb.InvoiceLine(
        description=line.description,
        quantity=to_decimal(line.quantity),
        unit_price=to_decimal(line.unit_price),
        amount=pb.Money(amount_minor=line.amount_minor, currency_code=currency_code),
    )
