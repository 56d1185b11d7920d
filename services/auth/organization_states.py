"""The state of an organization: what billing says of it, beside what the operator has decided.

Both are kept apart, so that a payment does not lift the operator's suspension and an operator does not lift billing's.
Deleted comes before suspended by either, and that before active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import OrganizationNotFound
from services.auth.model import Organization, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What is in force, and whether the statement changed it."""

    organization: Organization
    applied: bool


class OrganizationStates:
    """Takes over what billing says.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        audit: Is told of every change.
    """

    def __init__(self, *, db: Database, idempotency: Idempotency, audit: AuditLog) -> None:
        self._db = db
        self._idempotency = idempotency
        self._audit = audit

    async def state(self, organization_id: UUID, standing: Standing, asked: Mutation[Stated, Answer]) -> Answer:
        """Take over a statement of billing, unless one with the same or a higher version is known.

        Raises:
            OrganizationNotFound: There is no such organization.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._state, organization_id, standing)

    async def _state(self, tx: Connection, organization_id: UUID, standing: Standing) -> Stated:
        await store.organizations.lock_standing(tx, organization_id)
        known = await store.organizations.find_standing(tx, organization_id)
        if known is None:
            raise OrganizationNotFound(f"{organization_id}")
        applied = standing.state_version > known.state_version
        if applied:
            await store.organizations.update_standing(tx, organization_id, standing)
            await self._audit.note(
                tx,
                organization_id=organization_id,
                action="organization.set_state",
                resource=f"organization/{organization_id}",
                before=audited(known),
                after=audited(standing),
            )
        organization = await store.organizations.find(tx, organization_id)
        assert organization is not None, "organizations are never removed"  # noqa: S101
        return Stated(organization=organization, applied=applied)


def audited(standing: Standing) -> dict[str, Any]:
    """Return what the audit log says of a statement."""
    return {
        "plan_id": standing.plan_id,
        "restricted": standing.restricted,
        "suspended": standing.suspended,
        "state_version": standing.state_version,
    }
