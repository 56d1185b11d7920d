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
        await self.check_pace(tx, organization_id, creator_id, now)
        await self.check_count(tx, organization_id, now)

    async def check_pace(self, tx: Connection, organization_id: UUID, creator_id: UUID, now: datetime) -> None:
        """Let somebody make one more key now, or refuse it.

        Raises:
            ApiKeysCreatedTooFast: They have made too many in the last minute.
        """
        await _lock(tx, organization_id)
        oldest_time = await store.keys.find_nth_latest_creation(
            tx, organization_id, creator_id, since=now - _MINUTE, position=self.per_person_and_minute_max
        )
        if oldest_time is not None:
            wait_seconds = (oldest_time + _MINUTE - now).total_seconds()
            raise ApiKeysCreatedTooFast(
                metadata={"per_minute_max": str(self.per_person_and_minute_max)}, retry_after_seconds=wait_seconds
            )

    async def check_count(self, tx: Connection, organization_id: UUID, now: datetime, *, more: int = 1) -> None:
        """Let an organization have so many more keys, or refuse it.

        Raises:
            ApiKeyLimitReached: It would have too many.
        """
        await _lock(tx, organization_id)
        most = self.per_organization_max - more + 1
        if most < 1 or await store.keys.has_api_keys(tx, organization_id, count=most, now=now):
            raise ApiKeyLimitReached(metadata={"keys_max": str(self.per_organization_max)})


async def _lock(tx: Connection, organization_id: UUID) -> None:
    """Make counting and inserting one step."""
    await store.keys.lock_api_keys(tx, organization_id)
