"""The RPCs behind GraphQL, each with the field that offers it; a test compares this with the contract (G1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.calls import Rpc, typed_rpc

_AUTH: Final = auth.DESCRIPTOR.services_by_name["AuthService"]
_BILLING: Final = billing.DESCRIPTOR.services_by_name["BillingService"]
_METERING: Final = metering.DESCRIPTOR.services_by_name["MeteringService"]
_RATELIMIT: Final = ratelimit.DESCRIPTOR.services_by_name["RateLimitService"]

CREATE_SESSION: Final = typed_rpc(_AUTH, "CreateSession", auth.CreateSessionRequest, auth.CreateSessionResponse)
GET_ORGANIZATION: Final = typed_rpc(_AUTH, "GetOrganization", auth.GetOrganizationRequest, auth.Organization)
LIST_API_KEYS: Final = typed_rpc(_AUTH, "ListApiKeys", auth.ListApiKeysRequest, auth.ListApiKeysResponse)
GET_API_KEY: Final = typed_rpc(_AUTH, "GetApiKey", auth.GetApiKeyRequest, auth.ApiKey)
BATCH_GET_API_KEYS: Final = typed_rpc(
    _AUTH, "BatchGetApiKeys", auth.BatchGetApiKeysRequest, auth.BatchGetApiKeysResponse
)
CREATE_API_KEY: Final = typed_rpc(_AUTH, "CreateApiKey", auth.CreateApiKeyRequest, auth.CreateApiKeyResponse)
REVOKE_API_KEY: Final = typed_rpc(_AUTH, "RevokeApiKey", auth.RevokeApiKeyRequest, auth.ApiKey)
LIST_AUDIT_ENTRIES: Final = typed_rpc(
    _AUTH, "ListAuditEntries", auth.ListAuditEntriesRequest, auth.ListAuditEntriesResponse
)
QUERY_USAGE: Final = typed_rpc(_METERING, "QueryUsage", metering.QueryUsageRequest, metering.QueryUsageResponse)
LIST_PLANS: Final = typed_rpc(_BILLING, "ListPlans", billing.ListPlansRequest, billing.ListPlansResponse)
CREATE_SUBSCRIPTION: Final = typed_rpc(
    _BILLING, "CreateSubscription", billing.CreateSubscriptionRequest, billing.Subscription
)
PREVIEW_INVOICE: Final = typed_rpc(_BILLING, "PreviewInvoice", billing.PreviewInvoiceRequest, billing.InvoicePreview)
GET_POLICY: Final = typed_rpc(_RATELIMIT, "GetPolicy", ratelimit.GetPolicyRequest, ratelimit.Policy)

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {
    "Query.organization": GET_ORGANIZATION,
    "Query.apiKeys": LIST_API_KEYS,
    "Query.node": GET_API_KEY,
    "UsageRow.apiKey": BATCH_GET_API_KEYS,
    "Query.auditEntries": LIST_AUDIT_ENTRIES,
    "Query.usage": QUERY_USAGE,
    "Query.plans": LIST_PLANS,
    "Query.invoicePreview": PREVIEW_INVOICE,
    "Query.limits": GET_POLICY,
    "Mutation.signIn": CREATE_SESSION,
    "Mutation.createApiKey": CREATE_API_KEY,
    "Mutation.revokeApiKey": REVOKE_API_KEY,
    "Mutation.createSubscription": CREATE_SUBSCRIPTION,
}
