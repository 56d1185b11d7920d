"""Answering an invitation: joining with an account that is there, or declining.

An invitation joins the address that it was sent to, and no other: the token proves that somebody reads that mailbox, an
account's address is proved already, and the two have to be the same. So a forwarded e-mail takes nobody else in.

Of several answers that come at once the first one holds; the invitation's row is locked, and the membership's key keeps
a person from joining twice. An answer that is repeated is answered as the first one was.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import InvitationEnded, InvitationForAnother, InvitationNotFound, PersonNotFound
from services.auth.invitations import audited
from services.auth.mail import Mail
from services.auth.model import Invitation, InvitationState, Member, NamedMembership
from services.auth.one_time import OneTimeTokens, Purpose
from services.auth.standing import require_growth

MEMBER_JOINED: Final = "member_joined"
LISTED_MAX: Final = 100


class InvitationAnswers:
    """Lets invited people in.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        tokens: What is stored for a token.
        mail: Tells organizations who joined.
        audit: Is told of every answer.
        clock: Time.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        tokens: OneTimeTokens,
        mail: Mail,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._tokens = tokens
        self._mail = mail
        self._audit = audit
        self._clock = clock

    async def list_for(self, person_id: UUID) -> list[Invitation]:
        """Return the invitations that wait for a person's address, newest first."""
        async with self._db.system() as tx:
            person = await store.people.find(tx, person_id)
            if person is None:
                return []
            return await store.invitations.list_of_address(tx, person.email, self._clock.now(), limit=LISTED_MAX)

    async def accept(
        self,
        person_id: UUID,
        asked: Mutation[NamedMembership, Answer],
        *,
        token: str = "",
        invitation_id: UUID | None = None,
    ) -> Answer:
        """Join an organization with an account that is there.

        Args:
            person_id: Who joins.
            asked: The request.
            token: From the e-mail, or empty.
            invitation_id: Where there is no token.

        Raises:
            InvitationNotFound: There is no such invitation, or without a token none for the person's address.
            InvitationForAnother: The token is for another address.
            InvitationEnded: It does not wait any more.
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nobody can join.
            PersonNotFound: The account was erased a moment ago.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._accept, person_id, token, invitation_id)

    async def _accept(self, tx: Connection, person_id: UUID, token: str, invitation_id: UUID | None) -> NamedMembership:
        person = await store.people.find(tx, person_id)
        if person is None:
            raise PersonNotFound
        if token:
            found = await self.find(tx, token)
        else:
            assert invitation_id is not None, "rpc asks for one of the two"  # noqa: S101
            found = await store.invitations.find_of_address(tx, person.email, invitation_id, self._clock.now())
        if found is None:
            raise InvitationNotFound
        if found.email != person.email:
            raise InvitationForAnother
        return await self.join(tx, found, person_id)

    async def join(self, tx: Connection, found: Invitation, person_id: UUID) -> NamedMembership:
        """Make a person a member by an invitation to their address.

        Args:
            tx: Of `db.system()`.
            found: The invitation, read before in the same transaction.
            person_id: Whose address was invited.

        Raises:
            InvitationEnded: It does not wait any more, and the person is no member.
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nobody can join.
        """
        organization_id = found.organization_id
        member = await store.members.find(tx, organization_id, person_id)
        if member is None or found.state is InvitationState.PENDING:
            await require_growth(tx, organization_id)
            member = await self._let_in(tx, found, person_id)
        organization = await store.organizations.find(tx, organization_id)
        assert organization is not None, "organizations are never removed"  # noqa: S101
        return NamedMembership(
            organization_id=organization_id,
            organization_name=organization.name,
            organization_state=organization.state,
            role=member.role,
            join_time=member.join_time,
        )

    async def _let_in(self, tx: Connection, found: Invitation, person_id: UUID) -> Member:
        organization_id, now = found.organization_id, self._clock.now()
        invitation = await store.invitations.lock(tx, organization_id, found.invitation_id, now)
        if invitation is None:
            raise InvitationNotFound
        member = await store.members.find(tx, organization_id, person_id)
        if invitation.state is InvitationState.PENDING:
            await store.invitations.answer(tx, organization_id, invitation.invitation_id, InvitationState.ACCEPTED, now)
        elif member is None:
            raise InvitationEnded(metadata={"state": invitation.state.value})
        if member is None:
            await store.people.add_membership(tx, organization_id, person_id, invitation.role, now)
            member = await store.members.find(tx, organization_id, person_id)
            assert member is not None, "it was inserted"  # noqa: S101
            await self._note_joined(tx, invitation, member)
        return member

    async def decline(self, token: str) -> None:
        """Decline an invitation; one that was declined already stays so.

        Raises:
            InvitationNotFound: There is no such invitation.
            InvitationEnded: It was answered otherwise, taken back, or has expired.
        """
        async with self._db.system() as tx:
            found = await self.find(tx, token)
            if found is None:
                raise InvitationNotFound
            now = self._clock.now()
            invitation = await store.invitations.lock(tx, found.organization_id, found.invitation_id, now)
            if invitation is None:
                raise InvitationNotFound
            if invitation.state is InvitationState.DECLINED:
                return
            if invitation.state is not InvitationState.PENDING:
                raise InvitationEnded(metadata={"state": invitation.state.value})
            await store.invitations.answer(
                tx, invitation.organization_id, invitation.invitation_id, InvitationState.DECLINED, now
            )
            await self._audit.note(
                tx,
                organization_id=invitation.organization_id,
                action="invitation.decline",
                resource=f"invitation/{invitation.invitation_id}",
                before=audited(invitation),
                after={**audited(invitation), "state": InvitationState.DECLINED.value},
            )

    async def find(self, tx: Connection, token: str) -> Invitation | None:
        """Return the invitation that a token is for; what is no token costs no query."""
        digests = self._tokens.digests(Purpose.INVITATION, token)
        if not digests:
            return None
        return await store.invitations.find_by_token(tx, digests, self._clock.now())

    async def _note_joined(self, tx: Connection, invitation: Invitation, member: Member) -> None:
        await self._audit.note(
            tx,
            organization_id=member.organization_id,
            action="member.join",
            resource=f"person/{member.person_id}",
            actor=member.person_id,
            after=_audited_member(member),
            details={"invitation_id": str(invitation.invitation_id), "inviter_id": str(invitation.inviter_id)},
        )
        contact = await store.organizations.find_contact(tx, member.organization_id)
        if contact:
            await self._mail.enqueue(
                tx,
                MEMBER_JOINED,
                recipient=contact,
                organization_id=member.organization_id,
                facts={"organization_name": invitation.organization_name, "email": member.email},
            )


def _audited_member(member: Member) -> dict[str, Any]:
    return {"role": member.role.value}
