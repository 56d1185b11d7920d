"""How many API keys an organization may have, and how fast a person may make them.

Each key costs memory in every edge and an e-mail to the organization, so a member who makes hundreds of them in seconds
is stopped here, whatever way the calls came in by. What is counted are the rows themselves, so all replicas count
together. A lock per organization makes counting and inserting one step; it is held until the transaction ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from services.auth import store
from services.auth.errors import ApiKeyLimitReached, ApiKeysCreatedTooFast

_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """The limits of one installation."""

    per_organization_max: int
    """Keys that are neither revoked nor expired."""
    per_person_and_minute_max: int
    """Keys that one person or service account makes in one organization within a minute, revoked ones included."""

    async def check(self, tx: Connection, organization_id: UUID, creator_id: UUID, now: datetime) -> None:
        """Let one more key be made in this transaction, or refuse it.

        Raises:
            ApiKeysCreatedTooFast: The person has made too many in the last minute.
            ApiKeyLimitReached: The organization has too many.
        """
        await store.keys.lock_api_keys(tx, organization_id)
        oldest_time = await store.keys.find_nth_latest_creation(
            tx, organization_id, creator_id, since=now - _MINUTE, position=self.per_person_and_minute_max
        )
        if oldest_time is not None:
            wait_seconds = (oldest_time + _MINUTE - now).total_seconds()
            raise ApiKeysCreatedTooFast(
                metadata={"per_minute_max": str(self.per_person_and_minute_max)}, retry_after_seconds=wait_seconds
            )
        if await store.keys.has_api_keys(tx, organization_id, count=self.per_organization_max, now=now):
            raise ApiKeyLimitReached(metadata={"keys_max": str(self.per_organization_max)})
