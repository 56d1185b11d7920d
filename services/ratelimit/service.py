"""What ratelimit promises about policies: they are in force everywhere within a second, and only newer ones count."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from mesh import audit
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.ids import IdSource
from services.ratelimit import store
from services.ratelimit.errors import PolicyNotFound
from services.ratelimit.model import Policy
from services.ratelimit.policies import Policies


class PolicyService:
    """Puts policies in force.

    Args:
        db: Where they are stored.
        policies: Those in force in this process.
        clock: Dates the change.
        ids: Ids of audit entries.
    """

    def __init__(self, *, db: Database, policies: Policies, clock: Clock, ids: IdSource) -> None:
        self._db = db
        self._policies = policies
        self._clock = clock
        self._ids = ids

    async def put(self, policy: Policy) -> Policy:
        """Put a policy in force unless its version is not newer; return what is in force then."""
        now = self._clock.now()
        async with self._db.tenant(policy.organization_id) as tx:
            before = await store.lock_policy(tx, policy.organization_id)
            if await store.put_policy(tx, policy, now):
                await self._note(tx, before, policy, now)
            in_force = await store.get_policy(tx, policy.organization_id) or policy
        self._policies.take(in_force)
        return in_force

    async def get(self, organization_id: UUID) -> Policy:
        """Return the policy in force; the stored one, because this replica may be a moment behind.

        Raises:
            PolicyNotFound: There is none.
        """
        async with self._db.tenant(organization_id) as tx:
            policy = await store.get_policy(tx, organization_id)
        if policy is None:
            raise PolicyNotFound(str(organization_id))
        return policy

    async def _note(self, tx: Connection, before: Policy | None, after: Policy, now: datetime) -> None:
        await audit.enqueue(
            tx,
            job_id=self._ids.uuid7(),
            organization_id=after.organization_id,
            action="policy.put",
            resource=f"policy/{after.organization_id}",
            now=now,
            before=_shown(before) if before else None,
            after=_shown(after),
        )


def _shown(policy: Policy) -> dict[str, Any]:
    return {"version": policy.version, "windows": store.to_document(policy)}
