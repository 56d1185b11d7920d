"""Takes e-mails: the e-mail and the job that delivers it are stored in one transaction (`jobs.py` delivers)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from services.notification import store
from services.notification.errors import EmailLimitReached
from services.notification.model import Email

DELIVER_EMAIL: Final = "deliver_email"
_HOUR: Final = timedelta(hours=1)


class Outbox:
    """Takes e-mails.

    Args:
        db: Notification's tables.
        idempotency: Replays.
        clock: Time.
        ids: Ids of jobs.
        per_hour_max: E-mails that one organization may cause within an hour.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        clock: Clock,
        ids: IdSource,
        per_hour_max: int,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._clock = clock
        self._ids = ids
        self._per_hour_max = per_hour_max

    async def take(self, email: Email, asked: Mutation[Email, Answer]) -> Answer:
        """Store an e-mail and the job that delivers it; a replay stores nothing.

        Raises:
            EmailLimitReached: The organization has had too many within an hour. Callers are jobs: theirs come again.
        """
        async with self._db.tenant(email.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._take, email)

    async def _take(self, tx: Connection, email: Email) -> Email:
        now = self._clock.now()
        await self._check_limit(tx, email.organization_id, now)
        await store.insert_email(tx, email, now)
        await jobs.enqueue(
            tx,
            DELIVER_EMAIL,
            {"email_id": str(email.email_id)},
            job_id=self._ids.uuid7(),
            organization_id=email.organization_id,
        )
        return email

    async def _check_limit(self, tx: Connection, organization_id: UUID, now: datetime) -> None:
        await store.lock_emails(tx, organization_id)
        oldest_time = await store.find_nth_latest_email(
            tx, organization_id, since=now - _HOUR, position=self._per_hour_max
        )
        if oldest_time is not None:
            wait_seconds = (oldest_time + _HOUR - now).total_seconds()
            raise EmailLimitReached(
                metadata={"per_hour_max": str(self._per_hour_max)}, retry_after_seconds=wait_seconds
            )
