"""The RPCs of metering that GraphQL offers, each with the field that offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tollway.metering.v1 import metering_service_pb2 as metering

from graphql_gateway.rpc.calls import Rpc, typed_rpc

_SERVICE: Final = metering.DESCRIPTOR.services_by_name["MeteringService"]

QUERY_USAGE: Final = typed_rpc(_SERVICE, "QueryUsage", metering.QueryUsageRequest, metering.QueryUsageResponse)

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {
    "Query.usage": QUERY_USAGE,
}
