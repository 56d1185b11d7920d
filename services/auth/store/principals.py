"""What verifiers of tokens have to know beyond the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import (
    ChangedMembership,
    ChangedOrganization,
    ChangedServiceAccount,
    EndedSession,
    OrganizationState,
    PrincipalChange,
    RefusedTokens,
)

QUERIES: Final = load(__package__, "principals.sql")


async def find_changes(tx: Connection, transaction_ids: Sequence[int]) -> list[PrincipalChange]:
    """Return what some transactions have changed."""
    rows = await tx.fetch(QUERIES["select_changes_of_transactions"], transaction_ids)
    return [_change(row) for row in rows]


async def take_snapshot(
    tx: Connection, *, since: datetime, changes_max: int, part_size: int
) -> Iterator[tuple[PrincipalChange, ...]]:
    """Return what changed since an instant and which organizations are suspended, in parts.

    Of more than `changes_max` changes the oldest give way to the instant of the latest of them. A part is converted
    when it is asked for: a hundred thousand changes at once would hold up the event loop.
    """
    organizations = await tx.fetch(QUERIES["select_organizations_that_matter"], since)
    changes = await tx.fetch(QUERIES["select_recent_changes"], since, changes_max + 1)
    too_many: list[tuple[PrincipalChange, ...]] = []
    if len(changes) > changes_max:
        too_many = [(RefusedTokens(issued_before=changes.pop()["change_time"]),)]
    parts = (
        tuple(_change(row) for row in rows[at : at + part_size])
        for rows in (organizations, changes)
        for at in range(0, len(rows), part_size)
    )
    return chain(too_many, parts)


async def remove_changes(tx: Connection, *, until: datetime, limit: int) -> int:
    """Remove changes that no valid token can need and return how many there were."""
    status = await tx.execute(QUERIES["delete_old_changes"], until, limit)
    return int(str(status).rpartition(" ")[2])


def _change(row: Any) -> PrincipalChange:
    match row["kind"]:
        case "session":
            return EndedSession(session_id=row["subject_id"], change_time=row["change_time"])
        case "membership":
            return ChangedMembership(
                person_id=row["subject_id"],
                organization_id=row["organization_id"],
                version=row["version"],
                change_time=row["change_time"],
            )
        case "organization":
            # Organizations are never removed; one that is not there any more is as good as deleted.
            state = OrganizationState(row["state"] or "deleted")
            return ChangedOrganization(organization_id=row["subject_id"], state=state, version=row["version"] or 0)
        case _:
            return ChangedServiceAccount(service_account_id=row["subject_id"])
