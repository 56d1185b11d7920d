"""Billing on the wire: protobuf in, protobuf out, no rules. One module per resource, with its converters."""

from __future__ import annotations

from tollway.billing.v1 import billing_service_pb2_grpc

from mesh.pagination import PageTokens
from services.billing.rpc.invoices import InvoiceRpcs
from services.billing.rpc.plans import PlanRpcs
from services.billing.rpc.subscriptions import SubscriptionRpcs
from services.billing.service import Billing


class BillingHandler(PlanRpcs, SubscriptionRpcs, InvoiceRpcs, billing_service_pb2_grpc.BillingServiceServicer):
    """Handles the RPCs of `BillingService`.

    Args:
        billing: The rules.
        page_tokens: Pages.
    """

    def __init__(self, *, billing: Billing, page_tokens: PageTokens) -> None:
        PlanRpcs.__init__(self, billing, page_tokens)
        SubscriptionRpcs.__init__(self, billing)
        InvoiceRpcs.__init__(self, billing)
