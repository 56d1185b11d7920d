"""Changes of accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from tollway.auth.v1 import auth_service_pb2 as auth

from graphql_gateway.graph.accounts.rpcs import CREATE_API_KEY, CREATE_SESSION, REVOKE_API_KEY
from graphql_gateway.graph.accounts.types import (
    ApiKey,
    CreateApiKeyPayload,
    KeyMode,
    RevokeApiKeyPayload,
    SignInPayload,
)
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import mutation
from graphql_gateway.graph.relay import api_key_address_from, organization_id_from

Id = Annotated[strawberry.ID, strawberry.argument(name="id")]


@strawberry.type
class AccountMutations:
    """Changes of accounts."""

    @mutation("Signs a person in to one organization, or to the person's first.")
    async def sign_in(
        self, info: Info, email: str, password: str, organization_id: strawberry.ID | None = None
    ) -> SignInPayload | None:
        """Create a session."""
        organization = organization_id_from(organization_id, "organization_id") if organization_id else ""
        request = auth.CreateSessionRequest(email=email, password=password, organization_id=str(organization))
        return SignInPayload.from_proto(await info.context.call(CREATE_SESSION, request))

    @mutation("Creates an API key.")
    async def create_api_key(
        self,
        info: Info,
        *,
        name: str,
        mode: KeyMode = KeyMode.LIVE,
        scopes: list[str] | None = None,
        allowed_ips: list[str] | None = None,
        external_subject: str | None = None,
        expire_time: datetime | None = None,
        organization_id: strawberry.ID | None = None,
        idempotency_key: str | None = None,
    ) -> CreateApiKeyPayload | None:
        """Create an API key."""
        request = auth.CreateApiKeyRequest(
            organization_id=str(info.context.organization(organization_id)),
            name=name,
            mode=mode.value,
            scopes=scopes or (),
            allowed_ips=allowed_ips or (),
            external_subject=external_subject or "",
            idempotency_key=idempotency_key or "",
        )
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        answer = await info.context.call(CREATE_API_KEY, request)
        return CreateApiKeyPayload(api_key=ApiKey.from_proto(answer.api_key), secret=answer.secret)

    @mutation("Revokes an API key; every edge refuses it within a second.")
    async def revoke_api_key(
        self,
        info: Info,
        id_: Id,
        organization_id: strawberry.ID | None = None,
        idempotency_key: str | None = None,
    ) -> RevokeApiKeyPayload | None:
        """Revoke an API key. A global id names its organization itself."""
        named_organization, api_key_id = api_key_address_from(id_, "id")
        request = auth.RevokeApiKeyRequest(
            organization_id=str(named_organization or info.context.organization(organization_id)),
            api_key_id=str(api_key_id),
            idempotency_key=idempotency_key or "",
        )
        return RevokeApiKeyPayload(api_key=ApiKey.from_proto(await info.context.call(REVOKE_API_KEY, request)))
