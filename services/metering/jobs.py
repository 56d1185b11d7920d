"""Metering's jobs: what follows a decision elsewhere, and the daily clean-up."""

from __future__ import annotations

from typing import Final

from mesh import audit, jobs
from mesh.clock import Clock
from mesh.database.pools import Database

CLEAN_UP: Final = "clean_up"


class Jobs:
    """Handlers of metering's jobs.

    Args:
        db: Metering's tables.
        trail: Hands audit entries on.
        clock: Time of the clean-up.
    """

    def __init__(self, *, db: Database, trail: audit.AuditTrail, clock: Clock) -> None:
        self._db = db
        self._trail = trail
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {audit.APPEND: self._trail.append, CLEAN_UP: self.clean_up}

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await jobs.remove_finished(self._db, self._clock)
