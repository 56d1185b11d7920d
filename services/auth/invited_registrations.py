"""Registering by an invitation: the token proves the address, so the account is there at once and signs in.

Who holds the token reads the mailbox that it was sent to, and nobody else is told whether that address has an account.
A wrong or used token costs no hash. What has been begun otherwise for the address ends: somebody has proved that it is
theirs.
"""

from __future__ import annotations

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.errors import FieldViolation, InvalidFields
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import AccountExists, InvitationEnded, InvitationNotFound
from services.auth.families import SessionFamilies
from services.auth.invitation_answers import InvitationAnswers
from services.auth.model import Invitation, InvitationState, SessionTokens
from services.auth.password_rules import is_guessed_first
from services.auth.passwords import Passwords
from services.auth.throttle import network_of


class InvitedRegistrations:
    """Makes accounts of people who were invited.

    Args:
        db: People and invitations.
        answers: Finds invitations and lets people in.
        passwords: Hashes.
        families: Opens sessions.
        audit: Is told of new accounts.
        clock: Time.
        ids: Ids of people.
    """

    def __init__(
        self,
        *,
        db: Database,
        answers: InvitationAnswers,
        passwords: Passwords,
        families: SessionFamilies,
        audit: AuditLog,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._answers = answers
        self._passwords = passwords
        self._families = families
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def register(self, *, token: str, name: str, password: str, address: str) -> SessionTokens:
        """Make an account with the invited address, join, and sign in.

        Args:
            token: From the e-mail.
            name: The person's.
            password: Keeps the rules as far as they do not depend on the address.
            address: Where the call comes from.

        Raises:
            InvitationNotFound: There is no such invitation.
            InvitationEnded: It does not wait any more.
            AccountExists: The address has an account; it can sign in and accept.
            InvalidFields: The password is the address, or made of it.
            SignInBusy: Too many passwords wait to be hashed.
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nobody can join.
        """
        async with self._db.system() as tx:
            invitation = await self._find(tx, token)
        if is_guessed_first(password, (invitation.email, name, invitation.organization_name)):
            raise InvalidFields(
                violations=[FieldViolation(field="password", description="is among the first that are guessed")]
            )
        # No transaction is open here: a hash takes longer than all statements together.
        password_hash = await self._passwords.hash_newcomers(password, network=network_of(address))
        async with self._db.system() as tx:
            return await self._open_account(tx, invitation, name, password_hash)

    async def _find(self, tx: Connection, token: str) -> Invitation:
        invitation = await self._answers.find(tx, token)
        if invitation is None:
            raise InvitationNotFound
        if invitation.state is not InvitationState.PENDING:
            raise InvitationEnded(metadata={"state": invitation.state.value})
        if await store.people.find_by_email(tx, invitation.email) is not None:
            raise AccountExists
        return invitation

    async def _open_account(
        self, tx: Connection, invitation: Invitation, name: str, password_hash: str
    ) -> SessionTokens:
        person_id = self._ids.uuid7()
        is_new = await store.people.insert(
            tx, person_id, email=invitation.email, name=name, password_hash=password_hash, now=self._clock.now()
        )
        if not is_new:
            raise AccountExists
        await self._audit.note(
            tx,
            organization_id=invitation.organization_id,
            action="person.register",
            resource=f"person/{person_id}",
            actor=person_id,
        )
        await self._answers.join(tx, invitation, person_id)
        await store.registrations.remove_of(tx, invitation.email)
        return await self._families.open(tx, person_id, invitation.organization_id)
