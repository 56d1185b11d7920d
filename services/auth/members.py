"""Members of an organization: who is one, with what role, and how somebody ceases to be one.

**Owners.** An organization keeps at least one owner, however many demote, remove and leave at once. Whoever changes a
role or removes somebody first locks all owners, the person concerned and themselves, in one order. What counts is read
under that lock: neither a token's role nor what was so before. So of two owners who demote each other, one succeeds.

Owners remove anybody, admins only members. Somebody who leaves or is removed loses their sessions in the organization,
and invitations that they could no longer make are taken back. API keys stay: they are the organization's.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.rpc.access import Principal
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.authority import current_role
from services.auth.errors import LastOwner, MemberNotFound, OwnersRemoveAdmins
from services.auth.mail import Mail
from services.auth.model import Member, Role

ROLE_CHANGED: Final = "role_changed"
MEMBER_REMOVED: Final = "member_removed"
_MAY_NOT_INVITE_TO: Final = {
    Role.OWNER: (),
    Role.ADMIN: (Role.OWNER,),
    Role.MEMBER: (Role.OWNER, Role.ADMIN, Role.MEMBER),
}
"""Of each role, the roles that it may not invite to."""


class Members:
    """Lists members, changes their roles, removes them.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        mail: Tells people what became of their membership.
        audit: Is told of every change.
        clock: Time.
    """

    def __init__(self, *, db: Database, idempotency: Idempotency, mail: Mail, audit: AuditLog, clock: Clock) -> None:
        self._db = db
        self._idempotency = idempotency
        self._mail = mail
        self._audit = audit
        self._clock = clock

    async def list(self, organization_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int) -> list[Member]:
        """Return an organization's members, the first joined first.

        Args:
            organization_id: Whose.
            after: When the last one of the page before joined, and who that is; None means the first page.
            limit: At most so many.
        """
        async with self._db.read(organization_id) as tx:
            found = await store.members.list_members(tx, organization_id, after=after, limit=limit)
        async with self._db.system() as tx:
            protected = await store.members.find_second_factors(tx, [member.person_id for member in found])
        return [dataclasses.replace(member, second_factor=member.person_id in protected) for member in found]

    async def change_role(
        self,
        organization_id: UUID,
        person_id: UUID,
        role: Role,
        principal: Principal,
        asked: Mutation[Member, Answer],
    ) -> Answer:
        """Change a member's role; one who has it already is returned as they are.

        Raises:
            RoleInsufficient: The caller may not change roles (any more).
            MemberNotFound: There is no such member.
            LastOwner: Nobody else owns the organization.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._change_role, organization_id, person_id, role, principal
            )

    async def _change_role(
        self, tx: Connection, organization_id: UUID, person_id: UUID, role: Role, principal: Principal
    ) -> Member:
        roles = await store.members.lock(tx, organization_id, [person_id, _actor_id(principal)])
        await current_role(tx, principal, organization_id, access_pb2.PERMISSION_ROLES_CHANGE, self._clock.now())
        member = await store.members.find(tx, organization_id, person_id)
        if member is None:
            raise MemberNotFound
        if member.role is role:
            return member
        if role is not Role.OWNER:
            _require_another_owner(roles, person_id)
        await store.members.update_role(tx, organization_id, person_id, role)
        details = await self._cancel_invitations(tx, organization_id, person_id, role)
        changed = dataclasses.replace(member, role=role)
        await self._note(tx, member, "change_role", before=_audited(member), after=_audited(changed), details=details)
        await self._tell(tx, member, ROLE_CHANGED, role=role.value)
        return changed

    async def remove(
        self, organization_id: UUID, person_id: UUID, principal: Principal, asked: Mutation[Member, Answer]
    ) -> Answer:
        """Remove a member; their sessions in the organization end.

        Raises:
            RoleInsufficient: The caller may not remove members (any more).
            MemberNotFound: There is no such member.
            OwnersRemoveAdmins: Only owners may remove this one.
            LastOwner: Nobody else owns the organization.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._remove, organization_id, person_id, principal)

    async def _remove(self, tx: Connection, organization_id: UUID, person_id: UUID, principal: Principal) -> Member:
        roles = await store.members.lock(tx, organization_id, [person_id, _actor_id(principal)])
        own = await current_role(
            tx, principal, organization_id, access_pb2.PERMISSION_MEMBERS_REMOVE, self._clock.now()
        )
        member = await store.members.find(tx, organization_id, person_id)
        if member is None:
            raise MemberNotFound
        if own is not Role.OWNER and member.role is not Role.MEMBER:
            raise OwnersRemoveAdmins
        await self._end(tx, member, roles, "remove")
        await self._tell(tx, member, MEMBER_REMOVED)
        return member

    async def leave(self, organization_id: UUID, person_id: UUID, asked: Mutation[Member, Answer]) -> Answer:
        """Leave an organization; the person's sessions in it end.

        Raises:
            MemberNotFound: The person is no member.
            LastOwner: Nobody else owns the organization.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._leave, organization_id, person_id)

    async def _leave(self, tx: Connection, organization_id: UUID, person_id: UUID) -> Member:
        roles = await store.members.lock(tx, organization_id, [person_id])
        member = await store.members.find(tx, organization_id, person_id)
        if member is None:
            raise MemberNotFound
        await self._end(tx, member, roles, "leave")
        return member

    async def _end(self, tx: Connection, member: Member, roles: dict[UUID, Role], verb: str) -> None:
        _require_another_owner(roles, member.person_id)
        await store.members.delete(tx, member.organization_id, member.person_id)
        await store.sessions.revoke_in_organization(tx, member.person_id, member.organization_id)
        details = await self._cancel_invitations(tx, member.organization_id, member.person_id, None)
        await self._note(tx, member, verb, before=_audited(member), details=details)

    async def _cancel_invitations(
        self, tx: Connection, organization_id: UUID, person_id: UUID, role: Role | None
    ) -> dict[str, Any]:
        roles = _MAY_NOT_INVITE_TO[role or Role.MEMBER]
        cancelled = await store.invitations.cancel_of_inviter(tx, organization_id, person_id, roles, self._clock.now())
        return {"cancelled_invitations": [str(each) for each in cancelled]} if cancelled else {}

    async def _note(self, tx: Connection, member: Member, verb: str, **facts: Any) -> None:
        await self._audit.note(
            tx,
            organization_id=member.organization_id,
            action=f"member.{verb}",
            resource=f"person/{member.person_id}",
            **facts,
        )

    async def _tell(self, tx: Connection, member: Member, template: str, **facts: str) -> None:
        organization = await store.organizations.find(tx, member.organization_id)
        await self._mail.enqueue(
            tx,
            template,
            recipient=member.email,
            organization_id=member.organization_id,
            facts={"organization_name": organization.name if organization else "", **facts},
        )


def _actor_id(principal: Principal) -> UUID:
    return UUID(principal.subject)


def _require_another_owner(roles: dict[UUID, Role], person_id: UUID) -> None:
    """Keep an organization's last owner; `roles` are locked and hold all owners."""
    owners = {each for each, role in roles.items() if role is Role.OWNER}
    if owners == {person_id}:
        raise LastOwner


def _audited(member: Member) -> dict[str, Any]:
    return {"role": member.role.value}
