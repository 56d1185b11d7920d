"""Passwords and addresses of accounts: setting them with a token from an e-mail, and changing them.

A token is for one account as it was when the token was asked for: `people.credential_version` counts changes of the
password and the address, and a token of another version is void. Using one removes the person's others as well. Whoever
verifies a password does so before the transaction that acts on it, because a hash takes long; the transaction then
holds the person's row and compares the version again.

Every change ends sessions, is in the audit log of each of the person's organizations, and is told to the mailbox that
was the account's before it: whoever has taken an account over cannot do that in silence.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.errors import Violations
from services.auth import store
from services.auth.account_mail import EMAIL_CHANGE_ASKED, RESET_ASKED
from services.auth.audit import INSTALLATION, AuditLog
from services.auth.confirmation import Confirmation
from services.auth.email_requests import EmailRequests
from services.auth.errors import EmailTokenInvalid, PasswordWrong
from services.auth.mail import Mail, Page, shown_address, shown_time
from services.auth.model import CredentialRequest, Person, RevokeReason
from services.auth.one_time import OneTimeTokens, Purpose
from services.auth.password_rules import check_not_known
from services.auth.passwords import Passwords
from services.auth.throttle import network_of

REMOVED_AT_ONCE_MAX: Final = 10_000


class Credentials:
    """Sets and changes passwords and addresses.

    Args:
        db: Auth's tables.
        confirmation: Verifies today's password.
        passwords: Hashes.
        requests: Counts e-mails that are asked for.
        tokens: What is stored for a token.
        mail: Tells people.
        audit: Is told of changes.
        clock: Time.
        ids: Ids of rows and jobs.
    """

    def __init__(
        self,
        *,
        db: Database,
        confirmation: Confirmation,
        passwords: Passwords,
        requests: EmailRequests,
        tokens: OneTimeTokens,
        mail: Mail,
        audit: AuditLog,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._confirmation = confirmation
        self._passwords = passwords
        self._requests = requests
        self._tokens = tokens
        self._mail = mail
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def request_reset(self, email: str, *, address: str) -> None:
        """Have an e-mail sent with which a new password can be set. What is done here is the same for any address.

        Raises:
            EmailRequestsThrottled: There were too many from there.
        """
        self._requests.count(email, address)
        async with self._db.system() as tx:
            await self._ask(tx, RESET_ASKED, {"email": email})

    async def reset(self, token: str, new_password: str, *, address: str) -> None:
        """Set a new password with a token, and end every session.

        Raises:
            EmailTokenInvalid: The token is none, was used, its time is over, or the account has changed since.
            InvalidFields: The password is a word that is known of the person.
            SignInBusy: Too many passwords wait to be hashed.
        """
        digests = self._tokens.digests(Purpose.PASSWORD_RESET, token)
        async with self._db.system() as tx:
            request = await store.credentials.find_password_reset(tx, digests, self._clock.now()) if digests else None
            person = await store.people.find(tx, request.person_id) if request else None
        if request is None or person is None or person.credential_version != request.credential_version:
            raise EmailTokenInvalid
        _check_not_known(new_password, person)
        password_hash = await self._passwords.hash_newcomers(new_password, network=network_of(address))
        async with self._db.system() as tx:
            if not await self._is_still(tx, person):
                raise EmailTokenInvalid
            if not await store.credentials.take_password_reset(tx, request.request_id):
                raise EmailTokenInvalid
            await self._set_password(tx, person, password_hash, reason=RevokeReason.PASSWORD_RESET)

    async def change_password(
        self, person_id: UUID, current_password: str, new_password: str, *, session_id: UUID | None
    ) -> None:
        """Set another password and end every other session.

        Args:
            person_id: Who.
            current_password: Today's.
            new_password: Another one.
            session_id: The session that goes on.

        Raises:
            PasswordWrong: It is not today's password, or no longer.
            InvalidFields: The new one is a word that is known of the person.
            SignInThrottled: There were too many wrong ones.
            SignInBusy: Too many passwords wait to be verified or hashed.
        """
        person = await self._confirmation.confirm(person_id, current_password)
        _check_not_known(new_password, person)
        password_hash = await self._passwords.hash_own(new_password, person=str(person_id))
        async with self._db.system() as tx:
            if not await self._is_still(tx, person):
                raise PasswordWrong
            await self._set_password(
                tx, person, password_hash, reason=RevokeReason.PASSWORD_CHANGED, except_session=session_id
            )

    async def request_email_change(self, person_id: UUID, new_email: str, password: str, *, address: str) -> None:
        """Have an e-mail sent to another address with which it becomes the account's; the one of today is told.

        Raises:
            PasswordWrong: It is not today's password, or no longer.
            EmailRequestsThrottled: There were too many from there.
            SignInThrottled: There were too many wrong ones.
            SignInBusy: Too many passwords wait to be verified.
        """
        person = await self._confirmation.confirm(person_id, password)
        self._requests.count(new_email, address)
        async with self._db.system() as tx:
            if not await self._is_still(tx, person):
                raise PasswordWrong
            asked = {
                "person_id": str(person_id),
                "new_email": new_email,
                "credential_version": person.credential_version,
                "time": self._clock.now().isoformat(),
                "address": shown_address(),
            }
            await self._ask(tx, EMAIL_CHANGE_ASKED, asked)
            await self._audit.note_person(tx, person_id, action="person.email_change_request")

    async def verify_new_email(self, token: str) -> UUID | None:
        """Make another address the account's with a token sent there, and end every session.

        Returns:
            Whose address it is; None where the token is no such one.

        Raises:
            EmailTokenInvalid: The account has changed since.
            AccountExists: Somebody has got an account with this address meanwhile.
        """
        digests = self._tokens.digests(Purpose.EMAIL_CHANGE, token)
        if not digests:
            return None
        async with self._db.system() as tx:
            request = await store.credentials.find_email_change(tx, digests, self._clock.now())
            if request is None:
                return None
            person = await store.people.lock(tx, request.person_id)
            if person is None or person.credential_version != request.credential_version:
                raise EmailTokenInvalid
            if not await store.credentials.take_email_change(tx, request.request_id):
                raise EmailTokenInvalid
            await self._set_email(tx, person, request)
        return request.person_id

    async def _ask(self, tx: Connection, kind: str, payload: dict[str, object]) -> None:
        """Leave what was asked for to the worker, which finds out whether there is such an account."""
        await jobs.enqueue(
            tx,
            kind,
            {**payload, "request_id": str(self._ids.uuid7())},
            job_id=self._ids.uuid7(),
            organization_id=INSTALLATION,
        )

    async def _is_still(self, tx: Connection, person: Person) -> bool:
        """Tell whether a person's credentials are what they were, and keep them so for this transaction."""
        found = await store.people.lock(tx, person.person_id)
        return found is not None and found.credential_version == person.credential_version

    async def _set_password(
        self,
        tx: Connection,
        person: Person,
        password_hash: str,
        *,
        reason: RevokeReason,
        except_session: UUID | None = None,
    ) -> None:
        await store.people.set_password(tx, person.person_id, password_hash)
        await store.credentials.remove_requests(tx, person.person_id)
        await store.sessions.revoke_all(tx, person.person_id, except_session, reason=reason)
        action = "person.password_reset" if reason is RevokeReason.PASSWORD_RESET else "person.password_change"
        await self._audit.note_person(tx, person.person_id, action=action, actor=person.person_id)
        facts = {**self._occasion(), "link": self._mail.link(Page.FORGOTTEN_PASSWORD)}
        await self._tell(tx, "password_changed", person.email, facts)

    async def _set_email(self, tx: Connection, person: Person, request: CredentialRequest) -> None:
        await store.people.set_email(tx, person.person_id, request.new_email)
        await store.credentials.remove_requests(tx, person.person_id)
        await store.registrations.remove_of(tx, request.new_email)
        await store.sessions.revoke_all(tx, person.person_id, reason=RevokeReason.EMAIL_CHANGED)
        await self._audit.note_person(tx, person.person_id, action="person.email_change", actor=person.person_id)
        await self._tell(tx, "email_changed", person.email, {**self._occasion(), "new_email": request.new_email})

    def _occasion(self) -> dict[str, str]:
        return {"time": shown_time(self._clock.now()), "address": shown_address()}

    async def _tell(self, tx: Connection, template: str, recipient: str, facts: dict[str, str]) -> None:
        await self._mail.enqueue(tx, template, recipient=recipient, organization_id=None, facts=facts)


def _check_not_known(password: str, person: Person) -> None:
    violations = Violations()
    check_not_known(violations, "new_password", password, known=(person.email, person.name))
    violations.raise_if_any()


async def remove_expired(db: Database, clock: Clock) -> int:
    """Remove tokens whose time is over, and return how many; the daily clean-up."""
    total, before = 0, clock.now() - timedelta(days=1)
    while True:
        async with db.system() as tx:
            removed = await store.credentials.remove_expired(tx, before=before, limit=REMOVED_AT_ONCE_MAX)
        total += removed
        if removed < REMOVED_AT_ONCE_MAX:
            return total
