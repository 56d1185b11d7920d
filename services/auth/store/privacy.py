"""What is stored about a person, anywhere in auth: exporting and erasing it. Every function takes `db.system()`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load

QUERIES: Final = load(__package__, "privacy.sql")
SECTIONS: Final = (
    "platform_roles",
    "memberships",
    "second_factor",
    "sessions",
    "registrations",
    "email_changes",
    "password_resets",
    "invitations",
    "invitations_sent",
    "api_keys",
)


async def lock_owners(tx: Connection, person_id: UUID) -> dict[UUID, set[UUID]]:
    """Return the owners of each organization that a person owns, which nobody changes until the transaction ends."""
    await tx.fetch(QUERIES["lock_owners"], person_id)
    owners: dict[UUID, set[UUID]] = {}
    for row in await tx.fetch(QUERIES["select_owners"], person_id):
        owners.setdefault(row["organization_id"], set()).add(row["person_id"])
    return owners


async def find_addresses(tx: Connection, person_id: UUID) -> list[str]:
    """Return every address that a person is known to have or have had, in lower case."""
    return [row["address"] for row in await tx.fetch(QUERIES["select_addresses"], person_id)]


async def erase(tx: Connection, person_id: UUID, addresses: Sequence[str], now: datetime) -> None:
    """Remove everything that tells who a person was; their id stays."""
    await tx.execute(QUERIES["replace_contacts"], person_id, addresses)
    for name in (
        "remove_memberships",
        "remove_platform_roles",
        "remove_second_factor",
        "remove_password_resets",
        "blank_sessions",
    ):
        await tx.execute(QUERIES[name], person_id)
    await tx.execute(QUERIES["remove_email_changes"], person_id, addresses)
    await tx.execute(QUERIES["cancel_invitations_sent"], person_id, now)
    await tx.execute(QUERIES["remove_answers"], str(person_id))
    await tx.execute(QUERIES["erase_person"], person_id, now)
    await remove_personal_values(tx, person_id, addresses)
    await remove_traces(tx, addresses)


async def remove_personal_values(tx: Connection, person_id: UUID, addresses: Sequence[str]) -> None:
    """Remove what was set aside of a person in the audit log."""
    await tx.execute(QUERIES["remove_personal_values"], person_id, addresses)


async def remove_traces(tx: Connection, addresses: Sequence[str]) -> None:
    """Remove what goes by address: registrations, invitations, e-mails that wait, values of the audit log."""
    for name in ("remove_registrations", "remove_invitations", "remove_jobs", "remove_personal_values_by_address"):
        await tx.execute(QUERIES[name], addresses)


async def forget_payload(tx: Connection, job_id: UUID) -> None:
    """Leave nothing of what a job was told."""
    await tx.execute(QUERIES["forget_payload"], job_id)


async def export_person(tx: Connection, person_id: UUID) -> dict[str, Any] | None:
    """Return a person's own row."""
    text = await tx.fetchval(QUERIES["export_person"], person_id)
    return None if text is None else dict(json.loads(text))


async def export_section(tx: Connection, section: str, person_id: UUID, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest rows of a section of `SECTIONS`."""
    rows = await tx.fetch(QUERIES[f"export_{section}"], person_id, limit)
    return [json.loads(row["document"]) for row in rows]
