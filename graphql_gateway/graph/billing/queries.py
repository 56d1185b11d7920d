"""Reads of billing."""

from __future__ import annotations

import strawberry
from tollway.billing.v1 import billing_service_pb2 as billing

from graphql_gateway.graph.billing.rpcs import LIST_PLANS, PREVIEW_INVOICE
from graphql_gateway.graph.billing.types import InvoicePreview, Plan
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.relay import Connection, PageRequest


@strawberry.type
class BillingQueries:
    """Reads of billing."""

    @field("What the current period costs so far.")
    async def invoice_preview(self, info: Info, organization_id: strawberry.ID | None = None) -> InvoicePreview | None:
        """Preview the invoice."""
        request = billing.PreviewInvoiceRequest(organization_id=str(info.context.organization(organization_id)))
        return InvoicePreview.from_proto(await info.context.call(PREVIEW_INVOICE, request))

    @field("The plans on offer, cheapest first.")
    async def plans(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[Plan] | None:
        """List plans."""
        page = PageRequest.of(first, after)
        request = billing.ListPlansRequest(page_size=page.page_size, page_token=page.cursor.page_token)
        answer = await info.context.call(LIST_PLANS, request)
        return page.connection(answer.plans, answer.next_page_token, Plan.from_proto)
