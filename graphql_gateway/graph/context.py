"""What resolvers are given: who asks, the services, and this request's look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import strawberry
from google.protobuf.message import Message

from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.graph.cost import RowAllowance
from graphql_gateway.graph.loaders import Loaders
from graphql_gateway.graph.relay import organization_id_from
from graphql_gateway.rpc.calls import Calls, Rpc

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphContext:
    """The context of one GraphQL request."""

    scope: RequestScope
    calls: Calls
    loaders: Loaders
    rows: RowAllowance

    async def call(self, rpc: Rpc[Request, Response], request: Request) -> Response:
        """Call an RPC for whoever asks."""
        return await self.calls.unary(rpc, request, self.scope)

    def organization(self, named: strawberry.ID | None) -> UUID:
        """Return the organization that an argument names, else the one that the token is for.

        Raises:
            Failure: The argument is no id, or there is neither.
        """
        if named is not None:
            return organization_id_from(named, "organization_id")
        return self.scope.identity.require_organization()


Info = strawberry.Info[GraphContext, None]
