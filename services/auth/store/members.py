"""Members of organizations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Member, Role

QUERIES: Final = load(__package__, "members.sql")


async def find_actor_name(tx: Connection, actor_id: UUID) -> str:
    """Return what somebody who acts is called: a person, or a service account; empty where there is neither."""
    return await tx.fetchval(QUERIES["select_actor_name"], actor_id) or ""


async def lock(tx: Connection, organization_id: UUID, person_ids: Sequence[UUID]) -> dict[UUID, Role]:
    """Return the roles of all owners and of some others, and keep them so until the transaction ends."""
    rows = await tx.fetch(QUERIES["lock_members"], organization_id, person_ids)
    return {row["person_id"]: Role(row["role"]) for row in rows}


async def find(tx: Connection, organization_id: UUID, person_id: UUID) -> Member | None:
    """Return a member."""
    row = await tx.fetchrow(QUERIES["select_member"], organization_id, person_id)
    return _member(row) if row else None


async def has_email(tx: Connection, organization_id: UUID, email: str) -> bool:
    """Tell whether a member has an address."""
    return bool(await tx.fetchval(QUERIES["select_member_by_email"], organization_id, email))


async def list_members(
    tx: Connection, organization_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Member]:
    """Return an organization's members, the first joined first."""
    join_time, person_id = after or (None, None)
    rows = await tx.fetch(QUERIES["select_members"], organization_id, join_time, person_id, limit)
    return [_member(row) for row in rows]


async def find_second_factors(tx: Connection, person_ids: Sequence[UUID]) -> set[UUID]:
    """Return who of some people signs in with a second factor."""
    return {row["person_id"] for row in await tx.fetch(QUERIES["select_second_factors"], person_ids)}


async def hold_role(tx: Connection, organization_id: UUID, person_id: UUID) -> Role | None:
    """Return a member's role and keep it so until the transaction ends."""
    role = await tx.fetchval(QUERIES["hold_role"], organization_id, person_id)
    return Role(role) if role else None


async def find_service_account_role(
    tx: Connection, organization_id: UUID, service_account_id: UUID, now: datetime
) -> Role | None:
    """Return the role of a service account that is neither revoked nor expired."""
    role = await tx.fetchval(QUERIES["select_service_account_role"], organization_id, service_account_id, now)
    return Role(role) if role else None


async def update_role(tx: Connection, organization_id: UUID, person_id: UUID, role: Role) -> None:
    """Store a member's new role."""
    await tx.execute(QUERIES["update_role"], organization_id, person_id, role.value)


async def delete(tx: Connection, organization_id: UUID, person_id: UUID) -> None:
    """Remove a membership."""
    await tx.execute(QUERIES["delete_member"], organization_id, person_id)


async def delete_all(tx: Connection, organization_id: UUID) -> list[UUID]:
    """Remove all memberships of an organization and return whose they were."""
    return sorted(row["person_id"] for row in await tx.fetch(QUERIES["delete_members"], organization_id))


def _member(row: Any) -> Member:
    return Member(
        organization_id=row["organization_id"],
        person_id=row["person_id"],
        email=row["email"],
        name=row["name"],
        role=Role(row["role"]),
        join_time=row["join_time"],
    )
