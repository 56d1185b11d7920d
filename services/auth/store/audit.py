"""The audit log."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import AuditEntry

QUERIES: Final = load(__package__, "audit.sql")
_DOCUMENTS: Final = ("details", "before", "after")


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


async def list_entries(
    tx: Connection, organization_id: UUID, *, before_id: UUID | None, limit: int
) -> list[AuditEntry]:
    """Return an organization's audit log, newest first."""
    rows = await tx.fetch(QUERIES["select_audit_entries"], organization_id, before_id, limit)
    return [
        AuditEntry(**{**row, **{name: _json(row[name]) for name in ("details", "before", "after")}}) for row in rows
    ]


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
