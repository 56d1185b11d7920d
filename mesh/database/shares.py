"""Bounds what one tenant may hold of a pool, so that one who waits for a lock does not starve all others.

A pool of connections is shared by every organization. Fifty calls of one organization that wait behind a lock would
take all of them, and nobody else would get an answer. So a tenant holds a share of the pool at most; a few more calls
wait for a moment, and the rest is told at once to come back. A share is at least two connections, so in a pool of less
than four one tenant can still take everything.

Nothing is kept of a tenant that holds and waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from mesh.rpc.errors import ResourceExhausted

SHARE_DIVISOR: Final = 4
SHARE_MIN: Final = 2
WAITING_MAX: Final = 20
WAIT_SECONDS_MAX: Final = 2.0
RETRY_AFTER_SECONDS: Final = 1.0

_REFUSED: Final = Counter("tollway_database_tenant_refused_total", "Calls refused because their tenant has its share")


class TenantBusy(ResourceExhausted):
    """Too many requests of this organization are at work; try again in a moment."""


@dataclass(slots=True)
class _Share:
    places: asyncio.Semaphore
    users: int = 0


class TenantShares:
    """Counts who holds and waits for what, per tenant.

    Args:
        pool_size_max: Connections of the pool.
        wait_seconds_max: How long a call may wait for its tenant's share.
    """

    def __init__(self, pool_size_max: int, *, wait_seconds_max: float = WAIT_SECONDS_MAX) -> None:
        self._held_max = max(SHARE_MIN, pool_size_max // SHARE_DIVISOR)
        self._wait_seconds_max = wait_seconds_max
        self._shares: dict[UUID, _Share] = {}

    @contextlib.asynccontextmanager
    async def hold(self, organization_id: UUID) -> AsyncIterator[None]:
        """Hold a place of a tenant's share.

        Raises:
            TenantBusy: The share is taken, and too many wait already or the wait was too long.
        """
        share = self._shares.setdefault(organization_id, _Share(asyncio.Semaphore(self._held_max)))
        if share.users >= self._held_max + WAITING_MAX:
            _REFUSED.inc()
            raise TenantBusy(f"{share.users} calls of one tenant", retry_after_seconds=RETRY_AFTER_SECONDS)
        share.users += 1
        try:
            await self._wait(share)
            try:
                yield
            finally:
                share.places.release()
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[organization_id]

    async def _wait(self, share: _Share) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await share.places.acquire()
        except TimeoutError:
            _REFUSED.inc()
            raise TenantBusy("waited for its share", retry_after_seconds=RETRY_AFTER_SECONDS) from None
