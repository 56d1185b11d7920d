"""Writes the e-mails that people ask for without being signed in, and those with a token: the worker's part of asking.

Whoever asks is answered before anything here runs, so neither the answer nor its time depends on what is found. A token
is made here and stands sealed in the e-mail's own job; in the tables is its digest. Every handler may run twice: the
row of what was asked for has the id that its job names.

A mailbox gets at most so many e-mails of a kind within an hour; what is beyond is left out without a word. The tokens
in those that came are still good, so nobody is kept from going on by strangers who ask for more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from services.auth import store
from services.auth.mail import Mail, Page, shown_time
from services.auth.one_time import OneTimeTokens, Purpose

REGISTERED: Final = "write_registration_email"
VERIFICATION_ASKED: Final = "write_verification_email_again"
VERIFICATION_GOOD: Final = timedelta(hours=24)
KEPT: Final = timedelta(days=7)
"""How long the e-mail of a registration can be asked for again."""
REGISTRATION_MAILS_PER_HOUR_MAX: Final = 20
ALREADY_REGISTERED_MAILS_PER_HOUR_MAX: Final = 3
_HOUR: Final = timedelta(hours=1)
_TOO_MANY: Final = "account_emails_left_out"

log = structlog.get_logger()


class AccountMail:
    """Handlers of the jobs that write e-mails with tokens.

    Args:
        db: Auth's tables.
        mail: Sends what is written.
        tokens: Makes tokens.
        clock: Time.
    """

    def __init__(self, *, db: Database, mail: Mail, tokens: OneTimeTokens, clock: Clock) -> None:
        self._db = db
        self._mail = mail
        self._tokens = tokens
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {REGISTERED: self.registered, VERIFICATION_ASKED: self.verification_asked}

    async def registered(self, job: jobs.Job) -> None:
        """Write the e-mail of a new registration."""
        async with self._db.system() as tx:
            await self._write_registration(tx, UUID(job.payload["registration_id"]))

    async def verification_asked(self, job: jobs.Job) -> None:
        """Write the e-mail of a registration again, where one waits; with a token of its own."""
        registration_id, email = UUID(job.payload["registration_id"]), job.payload["email"]
        async with self._db.system() as tx:
            await store.registrations.repeat(tx, registration_id, email, since=self._clock.now() - KEPT)
            await self._write_registration(tx, registration_id)

    async def _write_registration(self, tx: Connection, registration_id: UUID) -> None:
        email = await store.registrations.lock_unmailed(tx, registration_id)
        if email is None:
            return
        now = self._clock.now()
        is_known = await store.people.find_by_email(tx, email) is not None
        sent_count = await store.registrations.count_mails(tx, email, since=now - _HOUR)
        if sent_count >= (ALREADY_REGISTERED_MAILS_PER_HOUR_MAX if is_known else REGISTRATION_MAILS_PER_HOUR_MAX):
            log.warning(_TOO_MANY, kind=REGISTERED)
            return
        if is_known:
            await store.registrations.note_mail(tx, registration_id, now, digest=None, expire_time=None)
            await self._mail.enqueue(
                tx,
                "already_registered",
                recipient=email,
                organization_id=None,
                facts={"link": self._mail.link(Page.FORGOTTEN_PASSWORD)},
            )
            return
        token, digest = self._tokens.mint(Purpose.REGISTRATION)
        expire_time = now + VERIFICATION_GOOD
        await store.registrations.note_mail(tx, registration_id, now, digest=digest, expire_time=expire_time)
        await self._enqueue(tx, "verify_email", email, Page.VERIFY_EMAIL, token, expire_time)

    async def _enqueue(  # noqa: PLR0917 an e-mail has as many parts
        self, tx: Connection, template: str, recipient: str, page: Page, token: str, expire_time: datetime
    ) -> None:
        await self._mail.enqueue(
            tx,
            template,
            recipient=recipient,
            organization_id=None,
            facts={"link": self._mail.link(page), "expire_time": shown_time(expire_time)},
            secrets={"token": token},
        )
