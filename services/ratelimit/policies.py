"""The policies in force, in memory: a decision never waits for PostgreSQL.

All policies are read at the start. A change is told by NOTIFY, and the row that it names is read again; when the
listening connection is lost, a new one is made and everything is read again, because notifications may have been missed
in between. While PostgreSQL is away the policies that are known stay in force.

Memory: about 2 KiB per organization, so a hundred thousand of them take 200 MiB per process.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Gauge

from mesh.database.pools import Database
from mesh.rpc.errors import RpcError
from services.ratelimit import store
from services.ratelimit.model import Policy
from services.ratelimit.policy_layout import PolicyLayout, lay_out

RECONNECT_PAUSE_SECONDS: Final = 0.5
# A safety net under the notifications.
REFRESH_INTERVAL_SECONDS: Final = 60.0

_KNOWN: Final = Gauge("tollway_ratelimit_policies", "Policies in force")
_LISTENING: Final = Gauge("tollway_ratelimit_policies_listening", "Whether changes of policies are being heard")

log = structlog.get_logger()


class Policies:
    """Policies by organization.

    Args:
        db: Where they are stored.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._layouts: dict[bytes, PolicyLayout] = {}
        self.loaded = asyncio.Event()

    def find(self, organization_id: bytes) -> PolicyLayout | None:
        """Return the policy in force for an organization, given as 16 bytes."""
        return self._layouts.get(organization_id)

    def take(self, policy: Policy) -> None:
        """Put a policy in force in this process, unless a newer one is."""
        known = self._layouts.get(policy.organization_id.bytes)
        if known is None or known.policy.version < policy.version:
            self._layouts[policy.organization_id.bytes] = lay_out(policy)
            _KNOWN.set(len(self._layouts))

    async def run(self) -> None:
        """Load, then follow changes, until cancelled."""
        while True:
            try:
                await self._follow()
            except (RpcError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("policies_not_followed", detail=repr(error))
            finally:
                _LISTENING.set(0)
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)

    async def _follow(self) -> None:
        changed: asyncio.Queue[str | None] = asyncio.Queue()
        stop = await self._db.listen(store.POLICIES_CHANNEL, changed.put_nowait, lambda: changed.put_nowait(None))
        try:
            await self._load_all()
            _LISTENING.set(1)
            while True:
                try:
                    async with asyncio.timeout(REFRESH_INTERVAL_SECONDS):
                        organization_id = await changed.get()
                except TimeoutError:
                    await self._load_all()
                    continue
                if organization_id is None:
                    return
                await self._load(UUID(organization_id))
        finally:
            await stop()

    async def _load_all(self) -> None:
        async with self._db.system() as tx:
            policies = await store.list_policies(tx)
        for policy in policies:
            self.take(policy)
        self.loaded.set()

    async def _load(self, organization_id: UUID) -> None:
        async with self._db.system() as tx:
            policy = await store.get_policy(tx, organization_id)
        if policy is not None:
            self.take(policy)
