"""Reads of usage."""

from __future__ import annotations

from datetime import datetime

import strawberry
from tollway.metering.v1 import metering_service_pb2 as metering

from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.usage.rpcs import QUERY_USAGE
from graphql_gateway.graph.usage.types import Dimension, Granularity, Usage, UsageRow, UsageTotals


@strawberry.type
class UsageQueries:
    """Reads of usage."""

    @field("Usage from start to before end, both multiples of 15 minutes.")
    async def usage(
        self,
        info: Info,
        *,
        start: datetime,
        end: datetime,
        granularity: Granularity = Granularity.RANGE,
        group_by: list[Dimension] | None = None,
        organization_id: strawberry.ID | None = None,
    ) -> Usage | None:
        """Sum usage."""
        organization = info.context.organization(organization_id)
        dimensions = group_by or []
        request = metering.QueryUsageRequest(
            organization_id=str(organization),
            granularity=granularity.value,
            group_by=[dimension.value for dimension in dimensions],
        )
        request.start_time.FromDatetime(start)
        request.end_time.FromDatetime(end)
        answer = await info.context.call(QUERY_USAGE, request)
        info.context.rows.take(len(answer.rows))
        key_index = dimensions.index(Dimension.API_KEY) if Dimension.API_KEY in dimensions else None
        return Usage(
            organization_id=organization,
            start=start,
            end=end,
            rows=[UsageRow.from_proto(row, organization, key_index) for row in answer.rows],
            totals=UsageTotals.from_rows(answer.rows),
        )
