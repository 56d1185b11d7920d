"""The audit log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection, Row
from mesh.database.sql import load
from services.auth.model import AuditEntry, AuditFilter, AuditPlace
from services.auth.personal_values import ERASED, WITHHELD, PersonalValue, put_back

QUERIES: Final = load(__package__, "audit.sql")
_DOCUMENTS: Final = ("details", "before", "after")
_FIRST: Final = AuditPlace(create_time=datetime(1, 1, 2, tzinfo=UTC), audit_entry_id=UUID(int=0))
_LAST: Final = AuditPlace(create_time=datetime(9999, 12, 30, tzinfo=UTC), audit_entry_id=UUID(int=0))


async def append(tx: Connection, entry: AuditEntry, *, personal_count: int) -> bool:
    """Append an entry from which so many values were taken out; False where one with its id is there already."""
    status = await tx.execute(
        QUERIES["insert_audit_entry"],
        entry.organization_id,
        entry.audit_entry_id,
        entry.actor,
        entry.actor_kind,
        entry.action,
        entry.resource,
        json.dumps(entry.details),
        entry.create_time,
        entry.address,
        entry.request_id,
        None if entry.before is None else json.dumps(entry.before),
        None if entry.after is None else json.dumps(entry.after),
        personal_count,
    )
    return str(status).endswith(" 1")


async def append_personal_values(tx: Connection, entry: AuditEntry, values: Sequence[PersonalValue]) -> None:
    """Store what was taken out of an entry."""
    for position, each in enumerate(values, start=1):
        await tx.execute(
            QUERIES["insert_personal_value"],
            entry.organization_id,
            entry.audit_entry_id,
            position,
            each.value,
            each.person_id,
        )


async def list_newest(
    tx: Connection, organization_id: UUID, wanted: AuditFilter, *, after: AuditPlace | None, limit: int
) -> list[AuditEntry]:
    """Return the entries of an organization's audit log behind a place, newest first."""
    return await _select(tx, "select_newest", organization_id, wanted, after or _LAST, limit)


async def list_oldest(
    tx: Connection, organization_id: UUID, wanted: AuditFilter, *, after: AuditPlace | None, limit: int
) -> list[AuditEntry]:
    """Return the entries of an organization's audit log behind a place, oldest first."""
    return await _select(tx, "select_oldest", organization_id, wanted, after or _FIRST, limit)


async def _select(  # noqa: PLR0917 one call for two orders
    tx: Connection, order: str, organization_id: UUID, wanted: AuditFilter, after: AuditPlace, limit: int
) -> list[AuditEntry]:
    name, values = _leading(wanted)
    await tx.execute(QUERIES["plan_for_these_values"])
    rows = await tx.fetch(
        QUERIES[f"{order}{name}"],
        organization_id,
        wanted.start_time or _FIRST.create_time,
        wanted.end_time or _LAST.create_time,
        after.create_time,
        after.audit_entry_id,
        *values,
        limit,
    )
    return await _read(tx, rows, "select_personal_values")


async def list_of_person(tx: Connection, person_id: UUID, *, limit: int) -> list[AuditEntry]:
    """Return what a person did and what was done to them in any organization, newest first; others stay unnamed."""
    rows = await tx.fetch(QUERIES["select_of_person"], str(person_id), f"person/{person_id}", limit)
    return await _read(tx, rows, "select_personal_values_of", person_id, gone=WITHHELD)


async def _read(tx: Connection, rows: Sequence[Row], query: str, *more: object, gone: str = ERASED) -> list[AuditEntry]:
    """Return rows as entries, what was taken out of them put back in as far as it is there."""
    values: dict[tuple[UUID, UUID], dict[int, str]] = {}
    marked = [row for row in rows if row["personal_count"]]
    if marked:
        keys = [row["organization_id"] for row in marked], [row["audit_entry_id"] for row in marked]
        for each in await tx.fetch(QUERIES[query], *keys, *more):
            of_entry = values.setdefault((each["organization_id"], each["audit_entry_id"]), {})
            of_entry[each["position"]] = each["value"]
    return [
        put_back(
            _entry(row),
            values.get((row["organization_id"], row["audit_entry_id"]), {}),
            row["personal_count"],
            gone=gone,
        )
        for row in rows
    ]


def _entry(row: Row) -> AuditEntry:
    stored = {name: value for name, value in row.items() if name != "personal_count"}
    return AuditEntry(**{**stored, **{name: _json(row[name]) for name in _DOCUMENTS}})


def _leading(wanted: AuditFilter) -> tuple[str, tuple[str | None, ...]]:
    """Return the statement whose index finds the fewest entries, and what else it is told."""
    action, kind = wanted.exact_action or None, wanted.kind or None
    if wanted.resource:
        return "_by_resource", (wanted.resource, wanted.actor or None, action, kind)
    if wanted.actor:
        return "_by_actor", (wanted.actor, action, kind)
    if action:
        return "_by_action", (action,)
    return ("_by_kind", (kind,)) if kind else ("", ())


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
