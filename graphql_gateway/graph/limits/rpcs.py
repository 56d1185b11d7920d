"""The RPCs of ratelimit that GraphQL offers, each with the field that offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.rpc.calls import Rpc, typed_rpc

_SERVICE: Final = ratelimit.DESCRIPTOR.services_by_name["RateLimitService"]

GET_POLICY: Final = typed_rpc(_SERVICE, "GetPolicy", ratelimit.GetPolicyRequest, ratelimit.Policy)

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {
    "Query.limits": GET_POLICY,
}
