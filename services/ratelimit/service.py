"""What ratelimit promises about policies: they are in force everywhere within a second, and only newer ones count."""

from __future__ import annotations

from uuid import UUID

from mesh.clock import Clock
from mesh.database.pools import Database
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
    """

    def __init__(self, *, db: Database, policies: Policies, clock: Clock) -> None:
        self._db = db
        self._policies = policies
        self._clock = clock

    async def put(self, policy: Policy) -> Policy:
        """Put a policy in force unless its version is not newer; return what is in force then."""
        async with self._db.tenant(policy.organization_id) as tx:
            await store.put_policy(tx, policy, self._clock.now())
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
