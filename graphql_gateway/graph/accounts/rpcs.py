"""The RPCs of auth that GraphQL offers, each with the field that offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollway.auth.v1 import auth_service_pb2 as auth

from graphql_gateway.rpc.calls import Rpc, typed_rpc

_SERVICE: Final = auth.DESCRIPTOR.services_by_name["AuthService"]

CREATE_SESSION: Final = typed_rpc(_SERVICE, "CreateSession", auth.CreateSessionRequest, auth.CreateSessionResponse)
GET_ORGANIZATION: Final = typed_rpc(_SERVICE, "GetOrganization", auth.GetOrganizationRequest, auth.Organization)
LIST_API_KEYS: Final = typed_rpc(_SERVICE, "ListApiKeys", auth.ListApiKeysRequest, auth.ListApiKeysResponse)
GET_API_KEY: Final = typed_rpc(_SERVICE, "GetApiKey", auth.GetApiKeyRequest, auth.ApiKey)
BATCH_GET_API_KEYS: Final = typed_rpc(
    _SERVICE, "BatchGetApiKeys", auth.BatchGetApiKeysRequest, auth.BatchGetApiKeysResponse
)
CREATE_API_KEY: Final = typed_rpc(_SERVICE, "CreateApiKey", auth.CreateApiKeyRequest, auth.CreateApiKeyResponse)
REVOKE_API_KEY: Final = typed_rpc(_SERVICE, "RevokeApiKey", auth.RevokeApiKeyRequest, auth.ApiKey)
LIST_AUDIT_ENTRIES: Final = typed_rpc(
    _SERVICE, "ListAuditEntries", auth.ListAuditEntriesRequest, auth.ListAuditEntriesResponse
)

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {
    "Query.organization": GET_ORGANIZATION,
    "Query.apiKeys": LIST_API_KEYS,
    "Query.node": GET_API_KEY,
    "UsageRow.apiKey": BATCH_GET_API_KEYS,
    "Query.auditEntries": LIST_AUDIT_ENTRIES,
    "Mutation.signIn": CREATE_SESSION,
    "Mutation.createApiKey": CREATE_API_KEY,
    "Mutation.revokeApiKey": REVOKE_API_KEY,
}
