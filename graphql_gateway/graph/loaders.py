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

from graphql_gateway.calls import Calls
from graphql_gateway.failure import Failure
from graphql_gateway.graph.rpcs import GET_ORGANIZATION, LIST_API_KEYS
from graphql_gateway.scope import RequestScope

API_KEY_PAGE_SIZE: Final = 100
API_KEY_PAGES_MAX: Final = 20
"""The contract lists keys and does not get one, so a look-up reads pages; older keys than these are not found."""

Key = TypeVar("Key")
Value = TypeVar("Value")

ApiKeyAddress = tuple[UUID, UUID]
"""Organization and API key."""


class Loaders:
    """The look-ups of one request.

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
        found: dict[str, auth.ApiKey] = {}
        page_token = ""
        for _ in range(API_KEY_PAGES_MAX):
            request = auth.ListApiKeysRequest(
                organization_id=str(organization_id), page_size=API_KEY_PAGE_SIZE, page_token=page_token
            )
            page = await self._calls.unary(LIST_API_KEYS, request, self._scope)
            found.update({key.api_key_id: key for key in page.api_keys if key.api_key_id in wanted})
            page_token = page.next_page_token
            if not page_token or len(found) == len(wanted):
                break
        return found


async def _or_failure(load: Callable[[Key], Awaitable[Value]], key: Key) -> Value | BaseException:
    """Return a failure instead of raising it: it belongs to one key, and the others have their values."""
    try:
        return await load(key)
    except Failure as failure:
        return failure


def _picked(found: dict[str, auth.ApiKey] | BaseException, api_key_id: UUID) -> auth.ApiKey | BaseException | None:
    return found if isinstance(found, BaseException) else found.get(str(api_key_id))
