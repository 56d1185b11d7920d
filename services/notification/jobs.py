"""Notification's jobs: delivery, what happens when it is given up, and the daily clean-up.

Delivering renders, hands the message to the mail server and notes that it did. Between the two last steps a worker can
die, and then the message is sent a second time under the same Message-ID: mail servers give no way to do better, and
readers' programs show such a pair as one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from mesh import jobs
from mesh.clock import Clock
from mesh.database import idempotency
from mesh.database.pools import Database
from mesh.database.resealing import reseal
from mesh.secretbox import SealBroken, SecretBox
from services.notification import store
from services.notification.errors import MailRefused
from services.notification.mailer import Mailer
from services.notification.message import build_message
from services.notification.model import Email, EmailState, sealing_context
from services.notification.resealing import SEALED_TABLES
from services.notification.service import DELIVER_EMAIL
from services.notification.templating import Templates

CLEAN_UP: Final = "clean_up"
RESEAL: Final = "reseal"
DELIVERED_KEPT: Final = timedelta(days=90)
REMOVED_AT_ONCE_MAX: Final = 10_000


class Delivery:
    """Handlers of notification's jobs.

    Args:
        db: Notification's tables.
        box: Opens what e-mails say.
        mailer: The way out.
        templates: What messages say.
        mail_from: The sender.
        clock: Time.
    """

    def __init__(
        self, *, db: Database, box: SecretBox, mailer: Mailer, templates: Templates, mail_from: str, clock: Clock
    ) -> None:
        self._db = db
        self._box = box
        self._mailer = mailer
        self._templates = templates
        self._mail_from = mail_from
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {DELIVER_EMAIL: self.deliver, CLEAN_UP: self.clean_up, RESEAL: self.reseal}

    def given_up(self) -> dict[str, jobs.Handler]:
        """Return what happens to work that is given up, by kind."""
        return {DELIVER_EMAIL: self.give_up}

    async def deliver(self, job: jobs.Job) -> None:
        """Send an e-mail, unless it was sent already. No transaction is open while the mail server is talked to."""
        organization_id, email_id = _ids(job)
        email = await self._find(organization_id, email_id)
        if email is None:
            raise jobs.PermanentFailure("the e-mail is gone")
        if email.state is EmailState.DELIVERED:
            return
        rendered = self._templates.render(email.template, email.parameters)
        message = build_message(email, rendered, mail_from=self._mail_from, now=self._clock.now())
        try:
            await self._mailer.send(message)
        except MailRefused as error:
            raise jobs.PermanentFailure(repr(error)) from error
        await self._end(organization_id, email_id, EmailState.DELIVERED)

    async def give_up(self, job: jobs.Job) -> None:
        """Note that an e-mail will not be delivered, and why."""
        organization_id, email_id = _ids(job)
        await self._end(organization_id, email_id, EmailState.DEAD, error=job.last_error)

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await idempotency.remove_expired(self._db, self._clock)
        await jobs.remove_finished(self._db, self._clock)
        removed = REMOVED_AT_ONCE_MAX
        while removed == REMOVED_AT_ONCE_MAX:
            async with self._db.system() as tx:
                before = self._clock.now() - DELIVERED_KEPT
                removed = await store.remove_delivered(tx, before=before, limit=REMOVED_AT_ONCE_MAX)

    async def reseal(self, _job: jobs.Job) -> None:
        """Seal what is sealed under an older data key anew."""
        for table in SEALED_TABLES:
            await reseal(self._db, self._box, table)

    async def _find(self, organization_id: UUID, email_id: UUID) -> Email | None:
        context = sealing_context(organization_id, email_id)
        try:
            async with self._db.tenant(organization_id) as tx:
                return await store.find_email(
                    tx, organization_id, email_id, open_sealed=lambda sealed: self._box.open(sealed, context)
                )
        except SealBroken as error:
            raise jobs.PermanentFailure(repr(error)) from error

    async def _end(self, organization_id: UUID, email_id: UUID, state: EmailState, *, error: str | None = None) -> None:
        async with self._db.tenant(organization_id) as tx:
            await store.end_email(tx, organization_id, email_id, state=state, now=self._clock.now(), error=error)


def _ids(job: jobs.Job) -> tuple[UUID, UUID]:
    if job.organization_id is None:
        raise jobs.PermanentFailure("the job names no organization")
    return job.organization_id, UUID(job.payload["email_id"])
