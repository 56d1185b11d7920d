"""Takes e-mails: the e-mail and the job that delivers it are stored in one transaction (`jobs.py` delivers)."""

from __future__ import annotations

from typing import Final

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from services.notification import store
from services.notification.model import Email

DELIVER_EMAIL: Final = "deliver_email"


class Outbox:
    """Takes e-mails.

    Args:
        db: Notification's tables.
        idempotency: Replays.
        clock: Time.
        ids: Ids of jobs.
    """

    def __init__(self, *, db: Database, idempotency: Idempotency, clock: Clock, ids: IdSource) -> None:
        self._db = db
        self._idempotency = idempotency
        self._clock = clock
        self._ids = ids

    async def take(self, email: Email, asked: Mutation[Email, Answer]) -> Answer:
        """Store an e-mail and the job that delivers it; a replay stores nothing."""
        async with self._db.tenant(email.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._take, email)

    async def _take(self, tx: Connection, email: Email) -> Email:
        await store.insert_email(tx, email, self._clock.now())
        await jobs.enqueue(
            tx,
            DELIVER_EMAIL,
            {"email_id": str(email.email_id)},
            job_id=self._ids.uuid7(),
            organization_id=email.organization_id,
        )
        return email
