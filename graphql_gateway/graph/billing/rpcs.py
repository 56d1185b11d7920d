"""The RPCs of billing that GraphQL offers, each with the field that offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollway.billing.v1 import billing_service_pb2 as billing

from graphql_gateway.rpc.calls import Rpc, typed_rpc

_SERVICE: Final = billing.DESCRIPTOR.services_by_name["BillingService"]

LIST_PLANS: Final = typed_rpc(_SERVICE, "ListPlans", billing.ListPlansRequest, billing.ListPlansResponse)
CREATE_SUBSCRIPTION: Final = typed_rpc(
    _SERVICE, "CreateSubscription", billing.CreateSubscriptionRequest, billing.Subscription
)
PREVIEW_INVOICE: Final = typed_rpc(_SERVICE, "PreviewInvoice", billing.PreviewInvoiceRequest, billing.InvoicePreview)

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {
    "Query.plans": LIST_PLANS,
    "Query.invoicePreview": PREVIEW_INVOICE,
    "Mutation.createSubscription": CREATE_SUBSCRIPTION,
}
