"""Changes of billing."""

from __future__ import annotations

import strawberry
from tollway.billing.v1 import billing_service_pb2 as billing

from graphql_gateway.graph.billing.rpcs import CREATE_SUBSCRIPTION
from graphql_gateway.graph.billing.types import CreateSubscriptionPayload, Subscription
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import mutation


@strawberry.type
class BillingMutations:
    """Changes of billing."""

    @mutation("Subscribes an organization to a plan.")
    async def create_subscription(
        self,
        info: Info,
        plan_id: str,
        organization_id: strawberry.ID | None = None,
        idempotency_key: str | None = None,
    ) -> CreateSubscriptionPayload | None:
        """Create a subscription."""
        request = billing.CreateSubscriptionRequest(
            organization_id=str(info.context.organization(organization_id)),
            plan_id=plan_id,
            idempotency_key=idempotency_key or "",
        )
        answer = await info.context.call(CREATE_SUBSCRIPTION, request)
        return CreateSubscriptionPayload(subscription=Subscription.from_proto(answer))
