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
from services.auth.model import CredentialRequest
from services.auth.one_time import OneTimeTokens, Purpose

REGISTERED: Final = "write_registration_email"
VERIFICATION_ASKED: Final = "write_verification_email_again"
RESET_ASKED: Final = "write_password_reset_email"
EMAIL_CHANGE_ASKED: Final = "write_email_change_email"
VERIFICATION_GOOD: Final = timedelta(hours=24)
RESET_GOOD: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=7)
"""How long the e-mail of a registration can be asked for again."""
REGISTRATION_MAILS_PER_HOUR_MAX: Final = 20
ALREADY_REGISTERED_MAILS_PER_HOUR_MAX: Final = 3
RESET_MAILS_PER_HOUR_MAX: Final = 5
EMAIL_CHANGE_MAILS_PER_HOUR_MAX: Final = 5
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
        return {
            REGISTERED: self.registered,
            VERIFICATION_ASKED: self.verification_asked,
            RESET_ASKED: self.reset_asked,
            EMAIL_CHANGE_ASKED: self.email_change_asked,
        }

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

    async def reset_asked(self, job: jobs.Job) -> None:
        """Write the e-mail with which a password can be set, where there is such an account."""
        now = self._clock.now()
        async with self._db.system() as tx:
            person = await store.people.find_by_email(tx, job.payload["email"])
            if person is None:
                return
            # The person's row is held, so that two jobs at once count one after the other.
            await store.people.lock(tx, person.person_id)
            sent_count = await store.credentials.count_password_resets(tx, person.person_id, since=now - _HOUR)
            if sent_count >= RESET_MAILS_PER_HOUR_MAX:
                log.warning(_TOO_MANY, kind=RESET_ASKED)
                return
            token, digest = self._tokens.mint(Purpose.PASSWORD_RESET)
            inserted = await store.credentials.insert_password_reset(
                tx, UUID(job.payload["request_id"]), person, digest=digest, now=now, expire_time=now + RESET_GOOD
            )
            if inserted:
                await self._enqueue(tx, "password_reset", person.email, Page.RESET_PASSWORD, token, now + RESET_GOOD)

    async def email_change_asked(self, job: jobs.Job) -> None:
        """Write to an address that is to become an account's, unless it has one, and tell the account's address."""
        asked, now = job.payload, self._clock.now()
        request = CredentialRequest(
            request_id=UUID(asked["request_id"]),
            person_id=UUID(asked["person_id"]),
            credential_version=asked["credential_version"],
            new_email=asked["new_email"],
        )
        async with self._db.system() as tx:
            person = await store.people.lock(tx, request.person_id)
            if person is None or person.credential_version != request.credential_version:
                return
            sent_count = await store.credentials.count_email_changes(tx, request.person_id, since=now - _HOUR)
            if sent_count >= EMAIL_CHANGE_MAILS_PER_HOUR_MAX:
                log.warning(_TOO_MANY, kind=EMAIL_CHANGE_ASKED)
                return
            token, digest = self._tokens.mint(Purpose.EMAIL_CHANGE)
            expire_time = now + VERIFICATION_GOOD
            # A row in any case: so many are asked for, whether or not the address is free.
            if not await store.credentials.insert_email_change(
                tx, request, digest=digest, now=now, expire_time=expire_time
            ):
                return
            if await store.people.find_by_email(tx, request.new_email) is None:
                await self._enqueue(tx, "email_change", request.new_email, Page.VERIFY_EMAIL, token, expire_time)
            await self._mail.enqueue(
                tx,
                "email_change_requested",
                recipient=person.email,
                organization_id=None,
                facts={
                    "new_email": request.new_email,
                    "time": shown_time(datetime.fromisoformat(asked["time"])),
                    "address": asked["address"],
                    "link": self._mail.link(Page.FORGOTTEN_PASSWORD),
                },
            )

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
