"""Reads of accounts: who asks, organizations, API keys, the audit log."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry
from tollway.auth.v1 import auth_service_pb2 as auth

from graphql_gateway import errors
from graphql_gateway.callers.identity import IdentityKind
from graphql_gateway.failure import Failure
from graphql_gateway.graph.accounts.rpcs import LIST_API_KEYS, LIST_AUDIT_ENTRIES
from graphql_gateway.graph.accounts.types import ApiKey, AuditEntry, Organization, Viewer
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.relay import Connection, Node, PageRequest, api_key_address_from, read_global_id

Id = Annotated[strawberry.ID, strawberry.argument(name="id")]
OptionalId = Annotated[strawberry.ID | None, strawberry.argument(name="id")]


@strawberry.type
class AccountQueries:
    """Reads of accounts."""

    @field("Who is asking; null without credentials.")
    def viewer(self, info: Info) -> Viewer | None:
        """Answer from the credentials; no service is asked."""
        identity = info.context.scope.identity
        if identity.kind is IdentityKind.ANONYMOUS:
            return None
        identity.require_known()
        return Viewer.from_identity(identity)

    @field("The organization or API key with this id.")
    async def node(self, info: Info, id_: Id) -> Node | None:
        """Look a thing up by its global id."""
        read = read_global_id(id_)
        match read:
            case ("Organization", [organization_id]):
                return Organization.from_proto(await _organization(info, strawberry.ID(organization_id)))
            case ("ApiKey", [_, _]):
                return await _api_key(info, id_)
            case _:
                raise Failure.of(errors.NodeNotFound())

    @field("An organization; without an id, the one that the token is for.")
    async def organization(self, info: Info, id_: OptionalId = None) -> Organization | None:
        """Get an organization."""
        return Organization.from_proto(await _organization(info, id_))

    @field("API keys, newest first.")
    async def api_keys(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        organization_id: strawberry.ID | None = None,
    ) -> Connection[ApiKey] | None:
        """List API keys."""
        page = PageRequest.of(first, after)
        request = auth.ListApiKeysRequest(
            organization_id=str(info.context.organization(organization_id)),
            page_size=page.page_size,
            page_token=page.cursor.page_token,
        )
        answer = await info.context.call(LIST_API_KEYS, request)
        return page.connection(answer.api_keys, answer.next_page_token, ApiKey.from_proto)

    @field("The audit log, newest first.")
    async def audit_entries(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        organization_id: strawberry.ID | None = None,
    ) -> Connection[AuditEntry] | None:
        """List audit entries."""
        page = PageRequest.of(first, after)
        request = auth.ListAuditEntriesRequest(
            organization_id=str(info.context.organization(organization_id)),
            page_size=page.page_size,
            page_token=page.cursor.page_token,
        )
        answer = await info.context.call(LIST_AUDIT_ENTRIES, request)
        return page.connection(answer.audit_entries, answer.next_page_token, AuditEntry.from_proto)


async def _organization(info: Info, named: strawberry.ID | None) -> auth.Organization:
    organization_id: UUID = info.context.organization(named)
    return await info.context.loaders.organizations.load(organization_id)


async def _api_key(info: Info, named: strawberry.ID) -> ApiKey:
    organization_id, api_key_id = api_key_address_from(named, "id")
    found = await info.context.loaders.api_keys.load((organization_id or info.context.organization(None), api_key_id))
    if found is None:
        raise Failure.of(errors.NodeNotFound())
    return ApiKey.from_proto(found)
