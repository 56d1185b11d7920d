"""Reads of limits."""

from __future__ import annotations

import strawberry
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.limits.rpcs import GET_POLICY
from graphql_gateway.graph.limits.types import Limits


@strawberry.type
class LimitQueries:
    """Reads of limits."""

    @field("The limits in force.")
    async def limits(self, info: Info, organization_id: strawberry.ID | None = None) -> Limits | None:
        """Get the limits."""
        request = ratelimit.GetPolicyRequest(organization_id=str(info.context.organization(organization_id)))
        return Limits.from_proto(await info.context.call(GET_POLICY, request))
