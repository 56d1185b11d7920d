"""Subscriptions on the wire."""

from __future__ import annotations

from typing import Any, Final

from tollway.billing.v1 import billing_service_pb2 as pb

from mesh.database.idempotency import mutation
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.billing.model import NewSubscription, Subscription
from services.billing.rpc.values import to_timestamp
from services.billing.service import Billing

PLAN_ID_LENGTH_MAX: Final = 63


class SubscriptionRpcs:
    """Handles the RPCs about subscriptions.

    Args:
        billing: The rules.
    """

    def __init__(self, billing: Billing) -> None:
        self._subscriptions = billing

    async def CreateSubscription(self, request: pb.CreateSubscriptionRequest, context: Any) -> pb.Subscription:
        """Subscribe an organization to a plan."""
        wanted = from_create_subscription(request, actor=current_principal().subject)
        asked = mutation(
            request,
            organization_id=wanted.organization_id,
            principal=wanted.actor,
            answer_type=pb.Subscription,
            to_answer=to_subscription,
        )
        return await self._subscriptions.subscribe(wanted, asked)


def to_subscription(subscription: Subscription) -> pb.Subscription:
    """Write a subscription."""
    return pb.Subscription(
        subscription_id=str(subscription.subscription_id),
        organization_id=str(subscription.organization_id),
        plan_id=subscription.plan_id,
        plan_version=subscription.plan_version,
        start_time=to_timestamp(subscription.start_time),
    )


def from_create_subscription(request: pb.CreateSubscriptionRequest, *, actor: str) -> NewSubscription:
    """Read what is asked for.

    Raises:
        InvalidFields: Some of it is wrong.
    """
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    right = 0 < len(request.plan_id) <= PLAN_ID_LENGTH_MAX
    violations.check(right, "plan_id", f"must have 1 to {PLAN_ID_LENGTH_MAX} characters")
    violations.raise_if_any()
    return NewSubscription(organization_id=organization_id, plan_id=request.plan_id, actor=actor)
