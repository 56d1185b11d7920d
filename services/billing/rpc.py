"""Billing on the wire: protobuf in, protobuf out, no rules.

The transaction of a mutation is opened here, because the idempotency key is reserved and the answer stored, as the
protobuf that the caller got, in that same transaction.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.billing.v1 import billing_service_pb2 as pb
from tollway.billing.v1 import billing_service_pb2_grpc

from mesh.database.idempotency import Idempotency, attempt
from mesh.database.pools import Database
from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from services.billing import convert
from services.billing.service import Billing

PLANS: Final = "plans"


class BillingHandler(billing_service_pb2_grpc.BillingServiceServicer):
    """Handles the RPCs of `BillingService`.

    Args:
        billing: The rules.
        db: For the transaction that a mutation and its idempotency key share.
        idempotency: Replays.
        page_tokens: Pages.
    """

    def __init__(self, *, billing: Billing, db: Database, idempotency: Idempotency, page_tokens: PageTokens) -> None:
        self._billing = billing
        self._db = db
        self._idempotency = idempotency
        self._page_tokens = page_tokens

    async def ListPlans(self, request: pb.ListPlansRequest, context: Any) -> pb.ListPlansResponse:
        """List the plans on offer."""
        wanted = self._page_tokens.read(page_size=request.page_size, page_token=request.page_token, listing=PLANS)
        plans = await self._billing.list_plans()
        names = [plan.plan_id for plan in plans]
        first = names.index(wanted.after_key) + 1 if wanted.after_key in names else 0
        cut = slice(first, first + wanted.fetch_limit)
        page = self._page_tokens.page(plans[cut], names[cut], request=wanted, listing=PLANS)
        return pb.ListPlansResponse(
            plans=[convert.to_plan(plan) for plan in page.rows], next_page_token=page.next_page_token
        )

    async def CreateSubscription(self, request: pb.CreateSubscriptionRequest, context: Any) -> pb.Subscription:
        """Subscribe an organization to a plan."""
        organization_id, plan_id = convert.from_create_subscription(request)
        actor = current_principal().subject
        asked = attempt(request, organization_id=organization_id, principal=actor)
        async with self._db.tenant(organization_id) as tx:

            async def create() -> pb.Subscription:
                subscription = await self._billing.subscribe(
                    tx, organization_id=organization_id, plan_id=plan_id, actor=actor
                )
                return convert.to_subscription(subscription)

            return await self._idempotency.once(tx, asked, pb.Subscription, create)

    async def PreviewInvoice(self, request: pb.PreviewInvoiceRequest, context: Any) -> pb.InvoicePreview:
        """Price the current period so far."""
        return convert.to_preview(await self._billing.preview_invoice(UUID(request.organization_id)))
