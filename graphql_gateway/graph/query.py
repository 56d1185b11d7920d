"""The queries. Each is one RPC and its conversion; who may see what is the services' decision.

Every field is nullable, so that one that fails leaves its siblings their answers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway import errors
from graphql_gateway.failure import Failure
from graphql_gateway.graph.account_types import ApiKey, AuditEntry, Organization, Viewer
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.relay import Connection, Node, PageRequest, api_key_address_from, read_global_id
from graphql_gateway.graph.rpcs import (
    GET_POLICY,
    LIST_API_KEYS,
    LIST_AUDIT_ENTRIES,
    LIST_PLANS,
    PREVIEW_INVOICE,
    QUERY_USAGE,
)
from graphql_gateway.graph.usage_types import (
    Dimension,
    Granularity,
    InvoicePreview,
    Limits,
    Plan,
    Usage,
    UsageRow,
    UsageTotals,
)
from graphql_gateway.identity import IdentityKind

Id = Annotated[strawberry.ID, strawberry.argument(name="id")]
OptionalId = Annotated[strawberry.ID | None, strawberry.argument(name="id")]


@strawberry.type
class Query:
    """Reads."""

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

    @field("Usage from start to before end, both multiples of 15 minutes.")
    async def usage(
        self,
        info: Info,
        *,
        start: datetime,
        end: datetime,
        granularity: Granularity = Granularity.RANGE,
        group_by: list[Dimension] | None = None,
        organization_id: strawberry.ID | None = None,
    ) -> Usage | None:
        """Sum usage."""
        organization = info.context.organization(organization_id)
        dimensions = group_by or []
        request = metering.QueryUsageRequest(
            organization_id=str(organization),
            granularity=granularity.value,
            group_by=[dimension.value for dimension in dimensions],
        )
        request.start_time.FromDatetime(start)
        request.end_time.FromDatetime(end)
        answer = await info.context.call(QUERY_USAGE, request)
        key_index = dimensions.index(Dimension.API_KEY) if Dimension.API_KEY in dimensions else None
        return Usage(
            organization_id=organization,
            start=start,
            end=end,
            rows=[UsageRow.from_proto(row, organization, key_index) for row in answer.rows],
            totals=UsageTotals.from_rows(answer.rows),
        )

    @field("What the current period costs so far.")
    async def invoice_preview(self, info: Info, organization_id: strawberry.ID | None = None) -> InvoicePreview | None:
        """Preview the invoice."""
        request = billing.PreviewInvoiceRequest(organization_id=_organization_text(info, organization_id))
        return InvoicePreview.from_proto(await info.context.call(PREVIEW_INVOICE, request))

    @field("The plans on offer, cheapest first.")
    async def plans(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[Plan] | None:
        """List plans."""
        page = PageRequest.of(first, after)
        request = billing.ListPlansRequest(page_size=page.page_size, page_token=page.cursor.page_token)
        answer = await info.context.call(LIST_PLANS, request)
        return page.connection(answer.plans, answer.next_page_token, Plan.from_proto)

    @field("The limits in force.")
    async def limits(self, info: Info, organization_id: strawberry.ID | None = None) -> Limits | None:
        """Get the limits."""
        request = ratelimit.GetPolicyRequest(organization_id=_organization_text(info, organization_id))
        return Limits.from_proto(await info.context.call(GET_POLICY, request))


async def _organization(info: Info, named: strawberry.ID | None) -> auth.Organization:
    organization_id: UUID = info.context.organization(named)
    return await info.context.loaders.organizations.load(organization_id)


def _organization_text(info: Info, named: strawberry.ID | None) -> str:
    return str(info.context.organization(named))


async def _api_key(info: Info, named: strawberry.ID) -> ApiKey:
    organization_id, api_key_id = api_key_address_from(named, "id")
    found = await info.context.loaders.api_keys.load((organization_id or info.context.organization(None), api_key_id))
    if found is None:
        raise Failure.of(errors.NodeNotFound())
    return ApiKey.from_proto(found)
