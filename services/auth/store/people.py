"""People, their memberships and the operator's roles."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Membership, Person, Role

QUERIES: Final = load(__package__, "people.sql")


async def find_by_email(tx: Connection, email: str) -> Person | None:
    """Return the person with an e-mail address in lower case."""
    row = await tx.fetchrow(QUERIES["select_person_by_email"], email)
    return Person(**row) if row else None


async def replace_password_hash(tx: Connection, person: Person, password_hash: str) -> None:
    """Store a password under newer parameters."""
    await tx.execute(QUERIES["update_password_hash"], person.person_id, person.password_hash, password_hash)


async def list_memberships(tx: Connection, person_id: UUID) -> list[Membership]:
    """Return a person's memberships, the first joined first."""
    rows = await tx.fetch(QUERIES["select_memberships"], person_id)
    return [Membership(organization_id=row["organization_id"], role=Role(row["role"])) for row in rows]


async def list_platform_roles(tx: Connection, person_id: UUID) -> list[str]:
    """Return a person's platform roles, for example `platform_admin`."""
    return [row["role"] for row in await tx.fetch(QUERIES["select_platform_roles"], person_id)]
