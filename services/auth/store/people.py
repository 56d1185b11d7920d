"""People, their memberships and the operator's roles."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from mesh.database.connection import Connection, Row
from mesh.database.sql import load
from services.auth.model import Contact, Membership, Person, Role

QUERIES: Final = load(__package__, "people.sql")


async def find_by_email(tx: Connection, email: str) -> Person | None:
    """Return the person with an e-mail address in lower case."""
    row = await tx.fetchrow(QUERIES["select_person_by_email"], email)
    return Person(**row) if row else None


async def find_contact(tx: Connection, person_id: UUID) -> Contact | None:
    """Return how a person is written to."""
    row = await tx.fetchrow(QUERIES["select_contact"], person_id)
    return Contact(**row) if row else None


async def replace_password_hash(tx: Connection, person: Person, password_hash: str) -> None:
    """Store a password under newer parameters."""
    await tx.execute(QUERIES["update_password_hash"], person.person_id, person.password_hash, password_hash)


async def list_memberships(tx: Connection, person_id: UUID) -> list[Membership]:
    """Return a person's memberships, the first joined first."""
    rows = await tx.fetch(QUERIES["select_memberships"], person_id)
    return [to_membership(row) for row in rows]


async def find_membership(tx: Connection, person_id: UUID, organization_id: UUID) -> Membership | None:
    """Return a person's membership."""
    row = await tx.fetchrow(QUERIES["select_membership"], organization_id, person_id)
    return to_membership(row) if row else None


async def lock_membership(tx: Connection, person_id: UUID, organization_id: UUID) -> Membership | None:
    """Return a person's membership; nobody changes or ends it before the transaction is over."""
    row = await tx.fetchrow(QUERIES["lock_membership"], organization_id, person_id)
    return to_membership(row) if row else None


def to_membership(row: Row) -> Membership:
    """Read a membership's row."""
    return Membership(organization_id=row["organization_id"], role=Role(row["role"]), version=row["version"])


async def list_platform_roles(tx: Connection, person_id: UUID) -> list[str]:
    """Return a person's platform roles, for example `platform_admin`."""
    return [row["role"] for row in await tx.fetch(QUERIES["select_platform_roles"], person_id)]
