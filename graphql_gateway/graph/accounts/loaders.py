"""Look-ups that several fields of one query want are made once, together (the DataLoader pattern).

A loader lives as long as one request, so it never shows one caller what another was allowed to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader
from tollway.auth.v1 import auth_service_pb2 as auth

from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.failure import Failure
from graphql_gateway.graph.accounts.rpcs import BATCH_GET_API_KEYS, GET_API_KEY, GET_ORGANIZATION
from graphql_gateway.rpc.calls import Calls

API_KEYS_AT_ONCE_MAX: Final = 100
"""The contract's bound on one `BatchGetApiKeys`."""
_API_KEY_NOT_FOUND: Final = "API_KEY_NOT_FOUND"

Key = TypeVar("Key")
Value = TypeVar("Value")

ApiKeyAddress = tuple[UUID, UUID]
"""Organization and API key."""


class AccountLoaders:
    """The look-ups of accounts that one request makes.

    Args:
        calls: The way to the services.
        scope: On whose behalf.
    """

    def __init__(self, calls: Calls, scope: RequestScope) -> None:
        self._calls = calls
        self._scope = scope
        self.organizations: DataLoader[UUID, auth.Organization] = DataLoader(self._load_organizations)
        self.api_keys: DataLoader[ApiKeyAddress, auth.ApiKey | None] = DataLoader(self._load_api_keys)

    async def _load_organizations(self, ids: Sequence[UUID]) -> list[auth.Organization | BaseException]:
        return await asyncio.gather(*(_or_failure(self._organization, one) for one in ids))

    async def _organization(self, organization_id: UUID) -> auth.Organization:
        request = auth.GetOrganizationRequest(organization_id=str(organization_id))
        return await self._calls.unary(GET_ORGANIZATION, request, self._scope)

    async def _load_api_keys(self, addresses: Sequence[ApiKeyAddress]) -> list[auth.ApiKey | BaseException | None]:
        wanted: dict[UUID, set[str]] = {}
        for organization_id, api_key_id in addresses:
            wanted.setdefault(organization_id, set()).add(str(api_key_id))

        async def found_in(organization_id: UUID) -> dict[str, auth.ApiKey]:
            return await self._api_keys(organization_id, wanted[organization_id])

        answers = await asyncio.gather(*(_or_failure(found_in, one) for one in wanted))
        found = dict(zip(wanted, answers, strict=True))
        return [_picked(found[organization_id], api_key_id) for organization_id, api_key_id in addresses]

    async def _api_keys(self, organization_id: UUID, wanted: set[str]) -> dict[str, auth.ApiKey]:
        if len(wanted) == 1:
            return await self._api_key(organization_id, *wanted)
        found: dict[str, auth.ApiKey] = {}
        ids = sorted(wanted)
        for at in range(0, len(ids), API_KEYS_AT_ONCE_MAX):
            request = auth.BatchGetApiKeysRequest(
                organization_id=str(organization_id), api_key_ids=ids[at : at + API_KEYS_AT_ONCE_MAX]
            )
            answer = await self._calls.unary(BATCH_GET_API_KEYS, request, self._scope)
            found.update({key.api_key_id: key for key in answer.api_keys})
        return found

    async def _api_key(self, organization_id: UUID, api_key_id: str) -> dict[str, auth.ApiKey]:
        request = auth.GetApiKeyRequest(organization_id=str(organization_id), api_key_id=api_key_id)
        try:
            return {api_key_id: await self._calls.unary(GET_API_KEY, request, self._scope)}
        except Failure as failure:
            if failure.reason != _API_KEY_NOT_FOUND:
                raise
            return {}


async def _or_failure(load: Callable[[Key], Awaitable[Value]], key: Key) -> Value | BaseException:
    """Return a failure instead of raising it: it belongs to one key, and the others have their values."""
    try:
        return await load(key)
    except Failure as failure:
        return failure


def _picked(found: dict[str, auth.ApiKey] | BaseException, api_key_id: UUID) -> auth.ApiKey | BaseException | None:
    return found if isinstance(found, BaseException) else found.get(str(api_key_id))
