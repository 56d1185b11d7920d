"""Organizations."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.errors import ContactEmailTaken, ExternalIdTaken
from services.auth.model import (
    NewOrganization,
    OperatorsWord,
    Organization,
    OrganizationFilter,
    OrganizationState,
    Registration,
    Standing,
)

QUERIES: Final = load(__package__, "organizations.sql")
UNPAID: Final = "An invoice has not been paid for too long."


async def find(tx: Connection, organization_id: UUID) -> Organization | None:
    """Return an organization."""
    row = await tx.fetchrow(QUERIES["select_organization"], organization_id)
    return _organization(row) if row else None


async def list_organizations(
    tx: Connection, wanted: OrganizationFilter, *, before_id: UUID | None, limit: int
) -> list[Organization]:
    """Return the installation's organizations, newest first."""
    state = wanted.state.value if wanted.state else ""
    rows = await tx.fetch(
        QUERIES["select_organizations"], before_id, wanted.name_contains, state, wanted.external_id, limit
    )
    return [_organization(row) for row in rows]


async def insert(tx: Connection, organization_id: UUID, new: NewOrganization, now: datetime) -> bool:
    """Store a new organization; False where the contact address is another one's.

    Raises:
        ExternalIdTaken: Another organization has it. The transaction cannot go on.
    """
    values = (new.name, new.external_id, new.contact_email, new.billing_email, new.currency_code, new.time_zone)
    metadata = json.dumps(dict(new.metadata))
    try:
        inserted = await tx.fetchval(QUERIES["insert_organization"], organization_id, *values, metadata, now)
    except asyncpg.UniqueViolationError as error:
        raise ExternalIdTaken from error
    return inserted is not None


async def lock(tx: Connection, organization_id: UUID) -> Organization | None:
    """Return an organization and keep others from changing it until the transaction ends."""
    await tx.execute(QUERIES["lock_organization"], organization_id)
    return await find(tx, organization_id)


async def update(tx: Connection, organization: Organization) -> None:
    """Store what an organization is called and where it is reached.

    Raises:
        ContactEmailTaken: The contact address is another one's. The transaction cannot go on.
    """
    try:
        await tx.execute(
            QUERIES["update_organization"],
            organization.organization_id,
            organization.name,
            organization.contact_email,
            organization.billing_email,
            organization.currency_code,
            organization.time_zone,
            json.dumps(dict(organization.metadata)),
        )
    except asyncpg.UniqueViolationError as error:
        raise ContactEmailTaken from error


async def lock_ownership(tx: Connection, person_id: UUID) -> None:
    """Keep others from making organizations for a person until the transaction ends."""
    await tx.execute(QUERIES["lock_ownership"], person_id)


async def count_owned(tx: Connection, person_id: UUID) -> int:
    """Return how many organizations a person owns."""
    count: int = await tx.fetchval(QUERIES["count_owned"], person_id)
    return count


async def find_operators_word(tx: Connection, organization_id: UUID) -> OperatorsWord | None:
    """Return what the operator says of an organization."""
    row = await tx.fetchrow(QUERIES["select_operators_word"], organization_id)
    if row is None:
        return None
    return OperatorsWord(state=OrganizationState(row["state"]), suspend_reason=row["suspend_reason"])


async def update_operators_word(tx: Connection, organization_id: UUID, word: OperatorsWord) -> None:
    """Note what the operator says of an organization."""
    await tx.execute(QUERIES["update_operators_word"], organization_id, word.state.value, word.suspend_reason)


async def delete(tx: Connection, organization_id: UUID, now: datetime) -> None:
    """Note that an organization is deleted; its contact address and external id are free for others again."""
    await tx.execute(QUERIES["delete_organization"], organization_id, now)


async def revoke_keys(tx: Connection, organization_id: UUID, now: datetime) -> int:
    """Revoke all of an organization's API keys and return how many there were."""
    return _count(await tx.execute(QUERIES["revoke_keys"], organization_id, now))


async def revoke_service_accounts(tx: Connection, organization_id: UUID, now: datetime) -> int:
    """Revoke all of an organization's service accounts and return how many there were."""
    return _count(await tx.execute(QUERIES["revoke_service_accounts"], organization_id, now))


async def lock_standing(tx: Connection, organization_id: UUID) -> None:
    """Keep others from adding to an organization and from changing its state until the transaction ends."""
    await tx.execute(QUERIES["lock_standing"], organization_id)


async def hold_standing(tx: Connection, organization_id: UUID) -> None:
    """Keep others from changing an organization's state until the transaction ends."""
    await tx.execute(QUERIES["hold_standing"], organization_id)


async def find_standing(tx: Connection, organization_id: UUID) -> Standing | None:
    """Return what billing says of an organization."""
    row = await tx.fetchrow(QUERIES["select_standing"], organization_id)
    return Standing(**row) if row else None


async def update_standing(tx: Connection, organization_id: UUID, standing: Standing) -> None:
    """Note what billing says of an organization."""
    values = (standing.plan_id, standing.restricted, standing.suspended, standing.state_version)
    await tx.execute(QUERIES["update_standing"], organization_id, *values)


def _organization(row: Any) -> Organization:
    state = OrganizationState(row["state"])
    suspend_reason = row["suspend_reason"] or (UNPAID if row["suspended"] else "")
    return Organization(
        organization_id=row["organization_id"],
        name=row["name"],
        state=state,
        external_id=row["external_id"] or "",
        contact_email=row["contact_email"],
        billing_email=row["billing_email"],
        currency_code=row["currency_code"],
        time_zone=row["time_zone"],
        metadata={key: str(value) for key, value in json.loads(row["metadata"]).items()},
        create_time=row["create_time"],
        plan_id=row["plan_id"],
        restricted=row["restricted"],
        suspend_reason=suspend_reason if state is OrganizationState.SUSPENDED else "",
        delete_time=row["delete_time"],
    )


async def find_contact(tx: Connection, organization_id: UUID) -> str | None:
    """Return where an organization is written to: its contact, or else who has owned it longest."""
    found: str | None = await tx.fetchval(QUERIES["select_contact"], organization_id)
    return found


async def insert_registered(tx: Connection, organization_id: UUID, registration: Registration, now: datetime) -> None:
    """Store the organization of a registration; without a contact where the address is another one's."""
    for contact_email in (registration.email, None):
        inserted = await tx.fetchval(
            QUERIES["insert_registered_organization"],
            organization_id,
            registration.organization_name,
            contact_email,
            registration.email,
            registration.currency_code,
            registration.time_zone,
            now,
        )
        if inserted is not None:
            return


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
