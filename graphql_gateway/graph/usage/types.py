"""Usage, as GraphQL shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal as ExactDecimal
from enum import Enum
from uuid import UUID

import strawberry
from tollway.metering.v1 import metering_service_pb2 as metering

from graphql_gateway.graph.accounts.types import ApiKey
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.scalars import Decimal, Int64
from graphql_gateway.graph.times import from_timestamp


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
    """The sums of a period, one row per bucket and group that was asked for."""

    organization_id: UUID
    start: datetime
    end: datetime
    rows: list[UsageRow] = strawberry.field(description="By time, then by dimensions; none without requests.")
    totals: UsageTotals
