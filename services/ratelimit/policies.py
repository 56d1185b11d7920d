"""The policies in force, in memory: a decision never waits for PostgreSQL.

All policies are read at the start. A change is told by NOTIFY, and the row that it names is read again; when the
listening connection is lost, a new one is made and everything is read again, because notifications may have been missed
in between. A notice is a hint and no more, because every role can send one: what is in force comes from the table, and
only a higher version replaces what is known. While PostgreSQL is away the policies that are known stay in force.

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

READ_ONE_BY_ONE_MAX: Final = 100
# While it is outdated, a replica is told so with every batch.
RELOAD_PAUSE_SECONDS: Final = 0.02
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
        self._outdated: set[UUID] = set()
        self._woken = asyncio.Event()
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

    def reload(self, organization_id: UUID) -> None:
        """Read a policy again: somebody has met a newer one."""
        self._outdated.add(organization_id)
        self._woken.set()

    async def run(self) -> None:
        """Load, then follow changes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._reload())

    async def _reload(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            named, self._outdated = frozenset(map(str, self._outdated)), set()
            try:
                await self._load_named(named)
            except (RpcError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("policies_not_reloaded", detail=repr(error))
            await asyncio.sleep(RELOAD_PAUSE_SECONDS)

    async def _follow(self) -> None:
        await self._db.follow(
            store.POLICIES_CHANNEL,
            changed=self._load_named,
            read_all=self._load_all,
            lost=lambda: _LISTENING.set(0),
            refresh_seconds=REFRESH_INTERVAL_SECONDS,
        )

    async def _load_all(self) -> None:
        async with self._db.system() as tx:
            policies = await store.list_policies(tx)
        for policy in policies:
            self.take(policy)
        self.loaded.set()
        _LISTENING.set(1)

    async def _load_named(self, notices: frozenset[str]) -> None:
        """Read the policies that were named; any role can send a notice, so one that names nothing is left out."""
        named = [each for each in map(_read_notice, notices) if each is not None]
        if len(named) > READ_ONE_BY_ONE_MAX:
            await self._load_all()
            return
        async with self._db.system() as tx:
            policies = [await store.get_policy(tx, organization_id) for organization_id in named]
        for policy in policies:
            if policy is not None:
                self.take(policy)


def _read_notice(payload: str) -> UUID | None:
    try:
        return UUID(payload)
    except ValueError:
        return None
