"""Metering's jobs: what follows a decision elsewhere, and the daily clean-up."""

from __future__ import annotations

from typing import Final

from tollway.auth.v1 import auth_service_pb2

from mesh import jobs
from mesh.clock import Clock
from mesh.database.pools import Database
from services.metering.clients import AuditLog

APPEND_AUDIT_ENTRY: Final = "append_audit_entry"
CLEAN_UP: Final = "clean_up"


class Jobs:
    """Handlers of metering's jobs.

    Args:
        db: Metering's tables.
        audit: The audit log.
        clock: Time of the clean-up.
    """

    def __init__(self, *, db: Database, audit: AuditLog, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {APPEND_AUDIT_ENTRY: self.append_audit_entry, CLEAN_UP: self.clean_up}

    async def append_audit_entry(self, job: jobs.Job) -> None:
        """Append to the audit log; the job's id is the entry's, so it is there once."""
        entry = auth_service_pb2.AuditEntry(
            audit_entry_id=str(job.job_id),
            organization_id=str(job.organization_id),
            actor=job.payload["actor"],
            action=job.payload["action"],
            resource=job.payload["resource"],
        )
        entry.details.update(job.payload["details"])
        entry.create_time.FromMicroseconds(job.payload["time_us"])
        await self._audit.append(entry)

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await jobs.remove_finished(self._db, self._clock)
