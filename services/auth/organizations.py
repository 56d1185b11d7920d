"""Organizations: made by people for themselves or by operators for customers, changed, listed, deleted.

An organization's contact address is unique in the installation. Somebody who names one that is taken is told so, and
not whose it is. Who names none gets their own address as the contact, or, where an organization of theirs has it
already, none: the organization is then reached through who has owned it longest.

**Deleting** is one transaction: keys, service accounts, invitations, memberships and sessions end in it, or none do.
It waits for whoever is adding something (`standing`) and is seen by all who come after. The row stays, because invoices
and the audit log do; its contact address and its external id are free for others again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.access import Principal
from mesh.rpc.errors import FieldViolation, InvalidFields
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.authority import current_role
from services.auth.errors import (
    ContactEmailTaken,
    OrganizationIsOwn,
    OrganizationLimitReached,
    OrganizationNotFound,
    PersonNotFound,
)
from services.auth.invitations import Invitations
from services.auth.model import NewOrganization, Organization, OrganizationFilter, OrganizationState, Role

ORGANIZATIONS_OWNED_MAX: Final = 20


class Organizations:
    """Makes, finds, changes and deletes organizations.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        invitations: Invites owners.
        audit: Is told of every change.
        clock: Time.
        ids: New ids.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        invitations: Invitations,
        audit: AuditLog,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._invitations = invitations
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def get(self, organization_id: UUID) -> Organization:
        """Return an organization, a deleted one as well.

        Raises:
            OrganizationNotFound: There is none.
        """
        async with self._db.read(organization_id) as tx:
            organization = await store.organizations.find(tx, organization_id)
        if organization is None:
            raise OrganizationNotFound(f"{organization_id}")
        return organization

    async def list(self, wanted: OrganizationFilter, *, before_id: UUID | None, limit: int) -> list[Organization]:
        """Return the installation's organizations, newest first."""
        async with self._db.system() as tx:
            return await store.organizations.list_organizations(tx, wanted, before_id=before_id, limit=limit)

    async def create(self, new: NewOrganization, principal: Principal, asked: Mutation[Organization, Answer]) -> Answer:
        """Make another organization for a person, who owns it.

        Raises:
            OrganizationLimitReached: They own too many.
            PersonNotFound: Their account was erased a moment ago.
            ContactEmailTaken: Another organization has the contact address that they named.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._create, new, UUID(principal.subject))

    async def _create(self, tx: Connection, new: NewOrganization, person_id: UUID) -> Organization:
        await store.organizations.lock_ownership(tx, person_id)
        if await store.organizations.count_owned(tx, person_id) >= ORGANIZATIONS_OWNED_MAX:
            raise OrganizationLimitReached(metadata={"organizations_max": str(ORGANIZATIONS_OWNED_MAX)})
        person = await store.people.find(tx, person_id)
        if person is None:
            raise PersonNotFound
        organization = await self._insert(tx, new, default_email=person.email)
        organization_id, now = organization.organization_id, organization.create_time
        await store.people.add_membership(tx, organization_id, person_id, Role.OWNER, now)
        await self._note(tx, organization_id, "create", after={**audited(organization), "owner_id": str(person_id)})
        return organization

    async def provision(
        self, new: NewOrganization, owner_email: str, principal: Principal, asked: Mutation[Organization, Answer]
    ) -> Answer:
        """Make an organization for a customer and invite its owner.

        Raises:
            ContactEmailTaken, ExternalIdTaken: Another organization has it.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._provision, new, owner_email, principal)

    async def _provision(
        self, tx: Connection, new: NewOrganization, owner_email: str, principal: Principal
    ) -> Organization:
        organization = await self._insert(tx, new, default_email=owner_email)
        await self._note(tx, organization.organization_id, "create", after=audited(organization))
        await self._invitations.open(tx, organization, owner_email, Role.OWNER, principal)
        return organization

    async def _insert(self, tx: Connection, new: NewOrganization, *, default_email: str) -> Organization:
        organization_id, now = self._ids.uuid7(), self._clock.now()
        contact_email = new.contact_email or default_email
        wanted = dataclasses.replace(new, contact_email=contact_email, billing_email=new.billing_email or contact_email)
        inserted = await store.organizations.insert(tx, organization_id, wanted, now)
        if not inserted and new.contact_email:
            raise ContactEmailTaken
        if not inserted:
            without = dataclasses.replace(wanted, contact_email="")
            await store.organizations.insert(tx, organization_id, without, now)
        return await self._find(tx, organization_id)

    async def update(
        self,
        organization_id: UUID,
        changes: Mapping[str, Any],
        principal: Principal,
        asked: Mutation[Organization, Answer],
    ) -> Answer:
        """Change what an organization is called and where it is reached.

        Args:
            organization_id: Which.
            changes: New values by field.
            principal: Who asks.
            asked: The request.

        Raises:
            RoleInsufficient: The caller may not do that (any more).
            OrganizationNotFound: There is none, or no longer.
            ContactEmailTaken: Another organization has the contact address.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._update, organization_id, changes, principal)

    async def _update(
        self, tx: Connection, organization_id: UUID, changes: Mapping[str, Any], principal: Principal
    ) -> Organization:
        before = await store.organizations.lock(tx, organization_id)
        if before is None or before.state is OrganizationState.DELETED:
            raise OrganizationNotFound(f"{organization_id}")
        await current_role(tx, principal, organization_id, access_pb2.PERMISSION_ORGANIZATION_UPDATE, self._clock.now())
        after = dataclasses.replace(before, **changes)
        if after == before:
            return before
        await store.organizations.update(tx, after)
        was, now = audited(before), audited(after)
        changed = [name for name in now if was[name] != now[name]]
        await self._note(
            tx,
            organization_id,
            "update",
            before={name: was[name] for name in changed},
            after={name: now[name] for name in changed},
        )
        return after

    async def delete(
        self, organization_id: UUID, name: str, principal: Principal, asked: Mutation[Organization, Answer]
    ) -> Answer:
        """Delete an organization for good; one that is deleted already is returned as it is.

        Raises:
            OrganizationNotFound: There is none.
            RoleInsufficient: The caller may not do that (any more).
            InvalidFields: It has another name.
            OrganizationIsOwn: An operator acts for it.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._delete, organization_id, name, principal)

    async def _delete(self, tx: Connection, organization_id: UUID, name: str, principal: Principal) -> Organization:
        await store.organizations.lock_standing(tx, organization_id)
        before = await store.organizations.lock(tx, organization_id)
        if before is None:
            raise OrganizationNotFound(f"{organization_id}")
        if name != before.name:
            raise InvalidFields(
                violations=[FieldViolation(field="name", description="must be the organization's name, typed again")]
            )
        if before.state is OrganizationState.DELETED:
            return before
        refuse_own(principal, organization_id)
        await current_role(tx, principal, organization_id, access_pb2.PERMISSION_ORGANIZATION_DELETE, self._clock.now())
        ended = await self._end_all(tx, organization_id)
        after = await self._find(tx, organization_id)
        await self._note(
            tx,
            organization_id,
            "delete",
            before={**audited(before), "state": before.state.value},
            after={**audited(after), "state": after.state.value},
            details=ended,
        )
        return after

    async def _end_all(self, tx: Connection, organization_id: UUID) -> dict[str, Any]:
        """End whatever acts in an organization, and return what the audit log says of it."""
        now = self._clock.now()
        await store.organizations.delete(tx, organization_id, now)
        member_ids = await store.members.delete_all(tx, organization_id)
        return {
            "api_keys": await store.organizations.revoke_keys(tx, organization_id, now),
            "service_accounts": await store.organizations.revoke_service_accounts(tx, organization_id, now),
            "sessions": len(await store.sessions.revoke_organization(tx, organization_id)),
            "invitations": await store.invitations.cancel_all(tx, organization_id, now),
            "member_ids": [str(each) for each in member_ids],
        }

    async def _find(self, tx: Connection, organization_id: UUID) -> Organization:
        organization = await store.organizations.find(tx, organization_id)
        assert organization is not None, "organizations are never removed"  # noqa: S101
        return organization

    async def _note(self, tx: Connection, organization_id: UUID, verb: str, **facts: Any) -> None:
        await self._audit.note(
            tx,
            organization_id=organization_id,
            action=f"organization.{verb}",
            resource=f"organization/{organization_id}",
            **facts,
        )


def refuse_own(principal: Principal, organization_id: UUID) -> None:
    """Keep operators from ending the organization that makes them operators.

    Raises:
        OrganizationIsOwn: They act for it.
    """
    if principal.platform_roles and principal.organization_id == organization_id:
        raise OrganizationIsOwn


def audited(organization: Organization) -> dict[str, Any]:
    """Return what the audit log says of an organization."""
    return {
        "name": organization.name,
        "external_id": organization.external_id,
        "contact_email": organization.contact_email,
        "billing_email": organization.billing_email,
        "currency_code": organization.currency_code,
        "time_zone": organization.time_zone,
        "metadata": dict(organization.metadata),
    }
