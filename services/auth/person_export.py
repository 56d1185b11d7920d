"""Exporting people: one JSON document with everything that auth stores about somebody, secrets apart.

Sections are bounded, the newest first, and `truncated` names those that had more; the audit log of an organization is
there in full for its owners (`ExportAuditEntries`).
"""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import PersonNotFound
from services.auth.model import AuditEntry

ROWS_PER_SECTION_MAX: Final = 1_000
AUDIT_BYTES_MAX: Final = 2 * 1024 * 1024
EXPORT: Final = "person.export"


class PersonExport:
    """Exports people.

    Args:
        db: Auth's tables.
        audit: Is told of exports by operators.
        clock: Dates the document.
    """

    def __init__(self, *, db: Database, audit: AuditLog, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    async def of_self(self, person_id: UUID) -> str:
        """Return everything about the person who asks.

        Raises:
            PersonNotFound: There is none, or no longer.
        """
        async with self._db.system() as tx:
            return await self._document(tx, person_id)

    async def of(self, person_id: UUID) -> str:
        """Return everything about somebody, and note who asked.

        Raises:
            PersonNotFound: There is none, or no longer.
        """
        async with self._db.system() as tx:
            document = await self._document(tx, person_id)
            await self._audit.note(tx, organization_id=None, action=EXPORT, resource=f"person/{person_id}")
        return document

    async def _document(self, tx: Connection, person_id: UUID) -> str:
        person = await store.privacy.export_person(tx, person_id)
        if person is None:
            raise PersonNotFound
        truncated: list[str] = []
        document: dict[str, Any] = {"export_time": self._clock.now().isoformat(), "person": person}
        for section in store.privacy.SECTIONS:
            rows = await store.privacy.export_section(tx, section, person_id, limit=ROWS_PER_SECTION_MAX + 1)
            if len(rows) > ROWS_PER_SECTION_MAX:
                truncated.append(section)
            document[section] = rows[:ROWS_PER_SECTION_MAX]
        entries = await store.audit.list_of_person(tx, person_id, limit=ROWS_PER_SECTION_MAX + 1)
        document["audit_entries"] = _bounded(entries)
        if len(document["audit_entries"]) < len(entries):
            truncated.append("audit_entries")
        document["truncated"] = truncated
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _bounded(entries: list[AuditEntry]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    left = AUDIT_BYTES_MAX
    for entry in entries[:ROWS_PER_SECTION_MAX]:
        values = _shown(entry)
        left -= len(json.dumps(values, ensure_ascii=False).encode())
        if left < 0:
            break
        shown.append(values)
    return shown


def _shown(entry: AuditEntry) -> dict[str, Any]:
    return {
        "organization_id": str(entry.organization_id),
        "audit_entry_id": str(entry.audit_entry_id),
        "create_time": entry.create_time.isoformat(),
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "action": entry.action,
        "resource": entry.resource,
        "address": entry.address,
        "details": entry.details,
        "before": entry.before,
        "after": entry.after,
    }
