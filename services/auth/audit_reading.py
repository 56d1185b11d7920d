"""Reading the audit log: pages of it, and all of it as a file.

A file is read in parts, each by a short transaction that begins where the part before has ended. So an export of any
length holds neither a transaction nor more than a part in memory, and whoever leaves leaves nothing behind. It ends
with the instant at which it began; entries that are written meanwhile, or that come late from other services, are in
the next one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.model import AuditEntry, AuditFilter, AuditPlace

ENTRIES_PER_PART: Final = 500
EXPORT: Final = "audit.export"


class AuditReading:
    """Lists and exports audit logs.

    Args:
        db: Where they are.
        audit: Is told of exports.
        clock: Ends an export.
    """

    def __init__(self, *, db: Database, audit: AuditLog, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    async def page(
        self, organization_id: UUID, wanted: AuditFilter, *, after: AuditPlace | None, limit: int
    ) -> list[AuditEntry]:
        """Return entries behind a place, newest first."""
        async with self._db.read(organization_id) as tx:
            return await store.audit.list_newest(tx, organization_id, wanted, after=after, limit=limit)

    async def begin_export(self, organization_id: UUID, wanted: AuditFilter, *, written_as: str) -> AuditFilter:
        """Note who exports and return what the export contains: what is there by now.

        Args:
            organization_id: Whose.
            wanted: Which entries.
            written_as: The file's format, for the log.
        """
        now = self._clock.now()
        await self._note(organization_id, wanted, written_as)
        return replace(wanted, end_time=min(now, wanted.end_time or now))

    async def parts(self, organization_id: UUID, wanted: AuditFilter) -> AsyncGenerator[list[AuditEntry], None]:
        """Yield entries in parts, oldest first."""
        after: AuditPlace | None = None
        while True:
            async with self._db.read(organization_id) as tx:
                part = await store.audit.list_oldest(tx, organization_id, wanted, after=after, limit=ENTRIES_PER_PART)
            if part:
                yield part
            if len(part) < ENTRIES_PER_PART:
                return
            after = AuditPlace(create_time=part[-1].create_time, audit_entry_id=part[-1].audit_entry_id)

    async def _note(self, organization_id: UUID, wanted: AuditFilter, written_as: str) -> None:
        asked = {
            "actor": wanted.actor,
            "action": wanted.action,
            "resource": wanted.resource,
            "start_time": wanted.start_time.isoformat() if wanted.start_time else "",
            "end_time": wanted.end_time.isoformat() if wanted.end_time else "",
        }
        details = {"format": written_as, **{name: value for name, value in asked.items() if value}}
        async with self._db.tenant(organization_id) as tx:
            await self._audit.note(
                tx,
                organization_id=organization_id,
                action=EXPORT,
                resource=f"organization/{organization_id}",
                details=details,
            )
