"""Organizations."""

from __future__ import annotations

import json
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Organization, OrganizationState

QUERIES: Final = load(__package__, "organizations.sql")


async def find(tx: Connection, organization_id: UUID) -> Organization | None:
    """Return an organization."""
    row = await tx.fetchrow(QUERIES["select_organization"], organization_id)
    if row is None:
        return None
    return Organization(
        organization_id=row["organization_id"],
        name=row["name"],
        state=OrganizationState(row["state"]),
        external_id=row["external_id"] or "",
        contact_email=row["contact_email"],
        billing_email=row["billing_email"],
        currency_code=row["currency_code"],
        time_zone=row["time_zone"],
        metadata={key: str(value) for key, value in json.loads(row["metadata"]).items()},
        create_time=row["create_time"],
    )
