"""Takes e-mails: the e-mail and the job that delivers it are stored in one transaction (`jobs.py` delivers)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.secretbox import SecretBox
from services.notification import store
from services.notification.errors import EmailLimitReached
from services.notification.model import Email, sealing_context

DELIVER_EMAIL: Final = "deliver_email"
INSTALLATION: Final = UUID(int=0)
"""E-mails that belong to no organization, for example about an account, are kept under this one."""
PER_RECIPIENT_AND_HOUR_MAX: Final = 60
_HOUR: Final = timedelta(hours=1)


class Outbox:
    """Takes e-mails.

    Args:
        db: Notification's tables.
        box: Seals what e-mails say.
        idempotency: Replays.
        clock: Time.
        ids: Ids of jobs.
        per_hour_max: E-mails that one organization may cause within an hour.
    """

    def __init__(
        self,
        *,
        db: Database,
        box: SecretBox,
        idempotency: Idempotency,
        clock: Clock,
        ids: IdSource,
        per_hour_max: int,
    ) -> None:
        self._db = db
        self._box = box
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
        if email.organization_id == INSTALLATION:
            await self._check_recipients_limit(tx, email.recipient, now)
        else:
            await self._check_limit(tx, email.organization_id, now)
        context = sealing_context(email.organization_id, email.email_id)
        sealed = self._box.seal(json.dumps(dict(email.parameters)).encode(), context)
        await store.insert_email(tx, email, sealed, now)
        await jobs.enqueue(
            tx,
            DELIVER_EMAIL,
            {"email_id": str(email.email_id)},
            job_id=self._ids.uuid7(),
            organization_id=email.organization_id,
        )
        return email

    async def _check_recipients_limit(self, tx: Connection, recipient: str, now: datetime) -> None:
        # What is nobody's but the recipient's has no organization to be counted by, and strangers may cause it.
        await store.lock_recipient(tx, recipient)
        oldest_time = await store.find_nth_latest_email_to(
            tx, recipient, since=now - _HOUR, position=PER_RECIPIENT_AND_HOUR_MAX
        )
        if oldest_time is not None:
            wait_seconds = (oldest_time + _HOUR - now).total_seconds()
            raise EmailLimitReached(
                metadata={"per_hour_max": str(PER_RECIPIENT_AND_HOUR_MAX)}, retry_after_seconds=wait_seconds
            )

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
