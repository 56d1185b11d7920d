"""The audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import AuditEntry, AuditFilter, AuditPlace

QUERIES: Final = load(__package__, "audit.sql")
_DOCUMENTS: Final = ("details", "before", "after")
_FIRST: Final = AuditPlace(create_time=datetime(1, 1, 2, tzinfo=UTC), audit_entry_id=UUID(int=0))
_LAST: Final = AuditPlace(create_time=datetime(9999, 12, 30, tzinfo=UTC), audit_entry_id=UUID(int=0))


async def append(tx: Connection, entry: AuditEntry) -> bool:
    """Append an entry; False where one with its id is there already."""
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
    )
    return str(status).endswith(" 1")


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
    return [AuditEntry(**{**row, **{name: _json(row[name]) for name in _DOCUMENTS}}) for row in rows]


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
