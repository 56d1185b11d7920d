"""The state of an organization: what billing says of it, beside what the operator has decided.

Both are kept apart, so that a payment does not lift the operator's suspension and an operator does not lift billing's.
Deleted comes before suspended by either, and that before active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.rpc.access import Principal
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import OrganizationNotFound
from services.auth.mail import Mail
from services.auth.model import OperatorsWord, Organization, OrganizationState, Standing
from services.auth.organizations import refuse_own

ORGANIZATION_SUSPENDED: Final = "organization_suspended"
ORGANIZATION_RESUMED: Final = "organization_resumed"
_SERVED: Final = OperatorsWord(state=OrganizationState.ACTIVE, suspend_reason="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What is in force, and whether the statement changed it."""

    organization: Organization
    applied: bool


class OrganizationStates:
    """Takes over what billing and the operator say.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        mail: Tells organizations what the operator has decided.
        audit: Is told of every change.
    """

    def __init__(self, *, db: Database, idempotency: Idempotency, mail: Mail, audit: AuditLog) -> None:
        self._db = db
        self._idempotency = idempotency
        self._mail = mail
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
        return Stated(organization=await self._find(tx, organization_id), applied=applied)

    async def suspend(
        self, organization_id: UUID, reason: str, principal: Principal, asked: Mutation[Organization, Answer]
    ) -> Answer:
        """Suspend an organization by the operator's word, and tell it why.

        Raises:
            OrganizationNotFound: There is none, or no longer.
            OrganizationIsOwn: The operator acts for it.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._suspend, organization_id, reason, principal)

    async def _suspend(self, tx: Connection, organization_id: UUID, reason: str, principal: Principal) -> Organization:
        refuse_own(principal, organization_id)
        word = OperatorsWord(state=OrganizationState.SUSPENDED, suspend_reason=reason)
        if await self._say(tx, organization_id, word, "suspend", reason):
            await self._tell(tx, organization_id, ORGANIZATION_SUSPENDED, reason=reason)
        return await self._find(tx, organization_id)

    async def resume(self, organization_id: UUID, reason: str, asked: Mutation[Organization, Answer]) -> Answer:
        """Take the operator's suspension back; what billing says stays in force.

        Raises:
            OrganizationNotFound: There is none, or no longer.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._resume, organization_id, reason)

    async def _resume(self, tx: Connection, organization_id: UUID, reason: str) -> Organization:
        changed = await self._say(tx, organization_id, _SERVED, "resume", reason)
        organization = await self._find(tx, organization_id)
        if changed and organization.state is OrganizationState.ACTIVE:
            await self._tell(tx, organization_id, ORGANIZATION_RESUMED)
        return organization

    async def _say(self, tx: Connection, organization_id: UUID, word: OperatorsWord, verb: str, reason: str) -> bool:
        """Note the operator's word, and return whether it is another one than before."""
        await store.organizations.lock_standing(tx, organization_id)
        known = await store.organizations.find_operators_word(tx, organization_id)
        if known is None or known.state is OrganizationState.DELETED:
            raise OrganizationNotFound(f"{organization_id}")
        if known == word:
            return False
        await store.organizations.update_operators_word(tx, organization_id, word)
        await self._audit.note(
            tx,
            organization_id=organization_id,
            action=f"organization.{verb}",
            resource=f"organization/{organization_id}",
            before={"state": known.state.value, "suspend_reason": known.suspend_reason},
            after={"state": word.state.value, "suspend_reason": word.suspend_reason},
            details={"reason": reason},
        )
        return True

    async def _tell(self, tx: Connection, organization_id: UUID, template: str, **facts: str) -> None:
        organization = await self._find(tx, organization_id)
        contact = await store.organizations.find_contact(tx, organization_id)
        if contact:
            await self._mail.enqueue(
                tx,
                template,
                recipient=contact,
                organization_id=organization_id,
                facts={"organization_name": organization.name, **facts},
            )

    async def _find(self, tx: Connection, organization_id: UUID) -> Organization:
        organization = await store.organizations.find(tx, organization_id)
        assert organization is not None, "organizations are never removed"  # noqa: S101
        return organization


def audited(standing: Standing) -> dict[str, Any]:
    """Return what the audit log says of a statement."""
    return {
        "plan_id": standing.plan_id,
        "restricted": standing.restricted,
        "suspended": standing.suspended,
        "state_version": standing.state_version,
    }
