"""The RPCs behind GraphQL, each with the field that offers it; a test compares this with the contract (G1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from graphql_gateway.graph.accounts import rpcs as accounts
from graphql_gateway.graph.billing import rpcs as billing
from graphql_gateway.graph.limits import rpcs as limits
from graphql_gateway.graph.usage import rpcs as usage
from graphql_gateway.rpc.calls import Rpc

FIELDS: Final[Mapping[str, Rpc[Any, Any]]] = {**accounts.FIELDS, **usage.FIELDS, **limits.FIELDS, **billing.FIELDS}
