"""When keys were last used: edges report it in batches, so that no request and no look-up writes anything.

An edge serves a key from its cache for hours without asking about it, so what auth is asked does not tell which keys
are in use. Edges therefore note the first use of a key and then one in five minutes, and send what they noted once a
minute. What is stored is raised by such a report when it is more than five minutes behind. Together a key that is in
use is at most ten minutes behind, and one minute more until the report arrives. While auth is away an edge keeps its
notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.pools import Database
from services.auth import store

STEP: Final = timedelta(minutes=5)


class KeyUses:
    """Stores when keys were last used.

    Args:
        db: Where keys are.
        clock: Time.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def record(self, uses: Iterable[tuple[UUID, UUID, timedelta]]) -> None:
        """Store uses as (organization, key, how long ago). What is stored already and later stands."""
        now = self._clock.now()
        latest: dict[tuple[UUID, UUID], datetime] = {}
        for organization_id, api_key_id, age in uses:
            key, use_time = (organization_id, api_key_id), now - age
            latest[key] = max(use_time, latest.get(key, use_time))
        if latest:
            async with self._db.system() as tx:
                await store.keys.touch_keys(tx, latest, STEP)
