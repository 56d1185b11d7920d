"""Organizations."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Organization, OrganizationState, Registration, Standing

QUERIES: Final = load(__package__, "organizations.sql")
UNPAID: Final = "An invoice has not been paid for too long."


async def find(tx: Connection, organization_id: UUID) -> Organization | None:
    """Return an organization."""
    row = await tx.fetchrow(QUERIES["select_organization"], organization_id)
    return _organization(row) if row else None


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
