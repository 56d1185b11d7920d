"""People, their memberships and the operator's roles."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from mesh.database.connection import Connection, Row
from mesh.database.sql import load
from services.auth.errors import AccountExists
from services.auth.model import Contact, Membership, NamedMembership, OrganizationState, Person, Profile, Role

QUERIES: Final = load(__package__, "people.sql")


async def find_by_email(tx: Connection, email: str) -> Person | None:
    """Return the person with an e-mail address in lower case."""
    row = await tx.fetchrow(QUERIES["select_person_by_email"], email)
    return Person(**row) if row else None


async def find(tx: Connection, person_id: UUID) -> Person | None:
    """Return a person, unless they were erased."""
    row = await tx.fetchrow(QUERIES["select_person"], person_id)
    return Person(**row) if row else None


async def lock(tx: Connection, person_id: UUID) -> Person | None:
    """Return a person, unless they were erased, and keep others from changing their account."""
    row = await tx.fetchrow(QUERIES["lock_person"], person_id)
    return Person(**row) if row else None


async def hold_credentials(tx: Connection, person: Person) -> bool:
    """Tell whether a person's password and address are still what they were, and keep them so for this transaction."""
    return await tx.fetchval(QUERIES["hold_credentials"], person.person_id, person.credential_version) is not None


async def find_profile(tx: Connection, person_id: UUID) -> Profile | None:
    """Return what a person is shown of themselves."""
    row = await tx.fetchrow(QUERIES["select_profile"], person_id)
    if row is None:
        return None
    memberships = [
        NamedMembership(
            organization_id=found["organization_id"],
            organization_name=found["organization_name"],
            role=Role(found["role"]),
            organization_state=OrganizationState(found["organization_state"]),
            join_time=found["join_time"],
        )
        for found in await tx.fetch(QUERIES["select_named_memberships"], person_id)
    ]
    return Profile(**row, memberships=tuple(memberships))


async def insert(tx: Connection, person_id: UUID, *, email: str, name: str, password_hash: str, now: datetime) -> bool:
    """Store a person; False where the address is somebody else's."""
    return await tx.fetchval(QUERIES["insert_person"], person_id, email, name, password_hash, now) is not None


async def find_contact(tx: Connection, person_id: UUID) -> Contact | None:
    """Return how a person is written to."""
    row = await tx.fetchrow(QUERIES["select_contact"], person_id)
    return Contact(**row) if row else None


async def replace_password_hash(tx: Connection, person: Person, password_hash: str) -> None:
    """Store a password under newer parameters."""
    await tx.execute(QUERIES["update_password_hash"], person.person_id, person.password_hash, password_hash)


async def set_password(tx: Connection, person_id: UUID, password_hash: str) -> None:
    """Store another password."""
    await tx.execute(QUERIES["set_password"], person_id, password_hash)


async def set_email(tx: Connection, person_id: UUID, email: str) -> None:
    """Store another address.

    Raises:
        AccountExists: It is somebody else's. The transaction cannot go on.
    """
    try:
        await tx.execute(QUERIES["set_email"], person_id, email)
    except asyncpg.UniqueViolationError as error:
        raise AccountExists from error


async def void_proofs(tx: Connection, person_id: UUID) -> None:
    """Void what was asked for or proved before; whoever is about to open a session proves themselves again."""
    await tx.execute(QUERIES["void_proofs"], person_id)


async def set_name(tx: Connection, person_id: UUID, name: str) -> None:
    """Store another display name."""
    await tx.execute(QUERIES["update_name"], person_id, name)


async def add_membership(tx: Connection, organization_id: UUID, person_id: UUID, role: Role, now: datetime) -> None:
    """Make a person a member of an organization."""
    await tx.execute(QUERIES["insert_membership"], organization_id, person_id, role.value, now)


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
