"""What metering asks of other services, which is only `auth`.

Members see the usage of the keys that they created (permission `USAGE_READ`). Keys belong to auth, so auth is asked, in
the member's own name. With auth away members get UNAVAILABLE; owners, admins and processes are not touched.
"""

from __future__ import annotations

from typing import Any, Final, Protocol
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2

from mesh.rpc.access import Principal
from mesh.rpc.client import forward

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 50


class OwnKeys(Protocol):
    """Who knows which keys somebody created."""

    async def created_by(self, principal: Principal) -> tuple[UUID, ...]:
        """Return the keys of the principal's organization that the principal created."""
        ...


class AuthKeys:
    """Keys as auth lists them, newest first; a member's keys beyond their newest 5,000 are left out.

    Args:
        auth: Stub of the service.
    """

    def __init__(self, auth: Any) -> None:
        self._auth = auth

    async def created_by(self, principal: Principal) -> tuple[UUID, ...]:
        """Return the keys of the principal's organization that the principal created."""
        found: list[UUID] = []
        request = auth_service_pb2.ListApiKeysRequest(
            organization_id=str(principal.organization_id), creator_id=principal.subject, page_size=PAGE_SIZE
        )
        for _ in range(PAGES_MAX):
            page = await self._auth.ListApiKeys(request, metadata=forward(principal))
            found += [UUID(key.api_key_id) for key in page.api_keys if key.creator_id == principal.subject]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return tuple(found)
