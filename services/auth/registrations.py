"""Registering: a pending registration, an e-mail, and at its end a person who owns a new organization.

Nobody can begin an account in another's name and wait for them to verify it (pre-hijacking, ADR 0040): what ends a
registration is the token from the e-mail *and* the password that it was begun with. Whoever reads the mailbox lacks a
stranger's password, and the stranger lacks the mailbox. Any number of registrations for one address may wait, each with
its own password and token; the first that is ended makes the account and removes the others.

Whether the address has an account plays no part in what is done before the answer: a hash, a row, a job. The e-mail is
written later, by the worker, and says either how to go on or that there is an account.
"""

from __future__ import annotations

from typing import Final

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.ids import IdSource
from services.auth import store
from services.auth.account_mail import KEPT, REGISTERED, VERIFICATION_ASKED
from services.auth.audit import INSTALLATION, AuditLog
from services.auth.email_requests import EmailRequests
from services.auth.errors import AccountExists, EmailTokenInvalid, PasswordWrong, SignInBusy, SignInThrottled
from services.auth.model import NewRegistration, Registered, Registration, Role
from services.auth.one_time import OneTimeTokens, Purpose
from services.auth.passwords import Passwords
from services.auth.throttle import Attempt, SignInThrottle, network_of

REMOVED_AT_ONCE_MAX: Final = 10_000


class Registrations:
    """Registers people.

    Args:
        db: Registrations, people, organizations.
        passwords: Hashes and verifies.
        throttle: Counts wrong passwords.
        requests: Counts e-mails that are asked for.
        tokens: What is stored for a token.
        audit: Is told of new accounts.
        clock: Time.
        ids: Ids of rows and jobs.
    """

    def __init__(
        self,
        *,
        db: Database,
        passwords: Passwords,
        throttle: SignInThrottle,
        requests: EmailRequests,
        tokens: OneTimeTokens,
        audit: AuditLog,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._passwords = passwords
        self._throttle = throttle
        self._requests = requests
        self._tokens = tokens
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def register(self, new: NewRegistration, *, address: str) -> None:
        """Begin a registration; an e-mail tells how it goes on.

        Raises:
            EmailRequestsThrottled: There were too many from there.
            SignInBusy: Too many passwords wait to be hashed.
        """
        self._requests.count(new.email, address)
        # No transaction is open here: a hash takes longer than all statements together.
        password_hash = await self._passwords.hash_newcomers(new.password, network=network_of(address))
        registration_id = self._ids.uuid7()
        async with self._db.system() as tx:
            await store.registrations.insert(
                tx, registration_id, new, password_hash=password_hash, now=self._clock.now()
            )
            await jobs.enqueue(
                tx,
                REGISTERED,
                {"registration_id": str(registration_id)},
                job_id=self._ids.uuid7(),
                organization_id=INSTALLATION,
            )

    async def request_verification(self, email: str, *, address: str) -> None:
        """Have the e-mail of a registration sent again.

        Raises:
            EmailRequestsThrottled: There were too many from there.
        """
        self._requests.count(email, address)
        async with self._db.system() as tx:
            await jobs.enqueue(
                tx,
                VERIFICATION_ASKED,
                {"email": email, "registration_id": str(self._ids.uuid7())},
                job_id=self._ids.uuid7(),
                organization_id=INSTALLATION,
            )

    async def verify(self, token: str, password: str, *, address: str) -> Registered | None:
        """End a registration: make the person and the organization that they own.

        Args:
            token: From the e-mail.
            password: What the registration was begun with.
            address: Where the attempt comes from.

        Returns:
            The account; None where the token is no registration's.

        Raises:
            PasswordWrong: The token stays good.
            SignInThrottled: There were too many wrong passwords.
            SignInBusy: Too many passwords wait to be verified.
            AccountExists: Somebody has got an account with this address meanwhile.
            EmailTokenInvalid: The same registration was ended at the same time.
        """
        digests = self._tokens.digests(Purpose.REGISTRATION, token)
        if not digests:
            return None
        async with self._db.system() as tx:
            registration = await store.registrations.find(tx, digests, self._clock.now())
        if registration is None:
            return None
        await self._check_password(registration, password, address)
        async with self._db.system() as tx:
            return await self._open_account(tx, registration)

    async def _check_password(self, registration: Registration, password: str, address: str) -> None:
        attempt = self._throttle.begin(f"registration/{registration.registration_id}", address)
        if not isinstance(attempt, Attempt):
            raise SignInThrottled(retry_after_seconds=attempt)
        try:
            fits = await self._passwords.verify_newcomer(
                registration.password_hash, password, network=network_of(address)
            )
        except SignInBusy:
            self._throttle.give_back(attempt)
            raise
        if not fits:
            raise PasswordWrong
        self._throttle.give_back(attempt)

    async def _open_account(self, tx: Connection, registration: Registration) -> Registered:
        if not await store.registrations.take(tx, registration.registration_id):
            raise EmailTokenInvalid
        now, made = self._clock.now(), Registered(person_id=self._ids.uuid7(), organization_id=self._ids.uuid7())
        is_new = await store.people.insert(
            tx,
            made.person_id,
            email=registration.email,
            name=registration.name,
            password_hash=registration.password_hash,
            now=now,
        )
        if not is_new:
            raise AccountExists
        await store.organizations.insert_registered(tx, made.organization_id, registration, now)
        await store.people.add_membership(tx, made.organization_id, made.person_id, Role.OWNER, now)
        await store.registrations.remove_of(tx, registration.email)
        await self._note(tx, made, registration)
        return made

    async def _note(self, tx: Connection, made: Registered, registration: Registration) -> None:
        await self._audit.note(
            tx,
            organization_id=made.organization_id,
            action="person.register",
            resource=f"person/{made.person_id}",
            actor=made.person_id,
        )
        await self._audit.note(
            tx,
            organization_id=made.organization_id,
            action="organization.create",
            resource=f"organization/{made.organization_id}",
            after={
                "name": registration.organization_name,
                "currency_code": registration.currency_code,
                "time_zone": registration.time_zone,
                "owner_id": str(made.person_id),
            },
            actor=made.person_id,
        )


async def remove_old(db: Database, clock: Clock) -> int:
    """Remove registrations that nobody ended, and return how many; the daily clean-up."""
    removed, total = REMOVED_AT_ONCE_MAX, 0
    while removed == REMOVED_AT_ONCE_MAX:
        async with db.system() as tx:
            removed = await store.registrations.remove_old(tx, before=clock.now() - KEPT, limit=REMOVED_AT_ONCE_MAX)
        total += removed
    return total
