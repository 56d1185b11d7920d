"""Keeps partitions ready: makes those of the coming weeks, drops ids that are too old to matter.

Ingest makes a missing partition itself, so nothing depends on this loop being on time; it only takes that work out of
the way of a request. Safe to run on any number of replicas at once: both steps do nothing where nothing is to be done.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Final

import asyncpg
import structlog
from prometheus_client import Gauge

from mesh.clock import Clock
from mesh.database.pools import Database
from mesh.rpc.errors import RpcError
from services.metering import store
from services.metering.event_parsing import DEDUPE_WINDOW
from services.metering.weeks import week_of

MAINTENANCE_INTERVAL_SECONDS: Final = 3_600.0
WEEKS_AHEAD_COUNT: Final = 4
# Ids are looked up from the Monday on or before the window's first day, so that whole week stays.
_ID_WEEKS_KEPT: Final = DEDUPE_WINDOW + timedelta(days=7)

_LAST_RUN: Final = Gauge("tollway_metering_maintenance_last_run_timestamp_seconds", "When partitions were last seen to")

log = structlog.get_logger()


class Maintenance:
    """Sees to the partitions.

    Args:
        db: Whose partitions.
        clock: Says which weeks are coming.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def run(self) -> None:
        """See to the partitions once an hour until cancelled."""
        while True:
            try:
                await self.run_once()
            except (RpcError, asyncpg.PostgresError) as error:
                log.warning("maintenance_failed", detail=repr(error))
            await asyncio.sleep(MAINTENANCE_INTERVAL_SECONDS)

    async def run_once(self) -> int:
        """Make the partitions of this and the coming weeks, drop expired ones; return how many were dropped."""
        now = self._clock.now()
        this_week = week_of(now)
        async with self._db.system() as tx:
            for table in (store.EVENT_IDS_TABLE, store.EVENTS_TABLE):
                for step in range(WEEKS_AHEAD_COUNT + 1):
                    await store.create_week_partition(tx, table, this_week + timedelta(weeks=step))
        oldest_kept = week_of(datetime.combine(this_week, time.min, UTC) - _ID_WEEKS_KEPT)
        async with self._db.system() as tx:
            dropped = await store.drop_event_id_weeks(tx, oldest_kept)
        if dropped:
            log.info("event_id_weeks_dropped", count=dropped, ended_before=oldest_kept.isoformat())
        _LAST_RUN.set(now.timestamp())
        return dropped
