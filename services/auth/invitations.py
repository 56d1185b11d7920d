"""Inviting people to an organization by e-mail, sending an invitation again, taking it back.

What an inviter is told does not depend on whether the address has an account: an invitation waits, whoever is behind
the address. That somebody is a member already is told, because whoever may invite sees all members anyway.

An invitation is a token in an e-mail. The e-mail to one address is limited per organization, so that nobody uses
invitations to bother people: what counts are the rows, which stay behind an answer for `KEPT`. A lock per organization
makes counting and inserting one step.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.access import Principal
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.authority import current_role, require_included
from services.auth.errors import (
    InvitationEnded,
    InvitationExists,
    InvitationLimitReached,
    InvitationNotFound,
    InvitationsSentTooOften,
    MemberExists,
)
from services.auth.mail import Mail, Page
from services.auth.model import Invitation, InvitationState, Organization, Role
from services.auth.one_time import OneTimeTokens, Purpose
from services.auth.standing import require_growth

INVITATION: Final = "invitation"
OPERATOR_NAME: Final = "Tollway"
GOOD_FOR: Final = timedelta(days=7)
KEPT: Final = timedelta(days=30)
"""How long an invitation can be looked up behind its expiry."""
PENDING_MAX: Final = 200
SENDS_PER_ADDRESS_AND_DAY_MAX: Final = 5
SEND_AGAIN_AFTER: Final = timedelta(minutes=1)
REMOVED_AT_ONCE_MAX: Final = 10_000
_DAY: Final = timedelta(days=1)
_INVITE: Final = access_pb2.PERMISSION_MEMBERS_INVITE


class Invitations:
    """Invites people.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        tokens: Makes tokens.
        mail: Sends them.
        audit: Is told of every change.
        clock: Time.
        ids: New ids.
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
        ids: IdSource,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._tokens = tokens
        self._mail = mail
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def invite(
        self, organization_id: UUID, email: str, role: Role, principal: Principal, asked: Mutation[Invitation, Answer]
    ) -> Answer:
        """Invite somebody.

        Raises:
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nobody can join.
            RoleInsufficient, RoleAboveOwn: The caller may not invite, or not to this role.
            MemberExists: The address is a member's.
            InvitationExists: An invitation for the address waits already.
            InvitationLimitReached: Too many wait.
            InvitationsSentTooOften: The address was written to too often.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._invite, organization_id, email, role, principal)

    async def _invite(
        self, tx: Connection, organization_id: UUID, email: str, role: Role, principal: Principal
    ) -> Invitation:
        organization = await require_growth(tx, organization_id)
        own = await current_role(tx, principal, organization_id, _INVITE, self._clock.now())
        require_included(own, role)
        if await store.members.has_email(tx, organization_id, email):
            raise MemberExists
        return await self.open(tx, organization, email, role, principal)

    async def open(
        self, tx: Connection, organization: Organization, email: str, role: Role, principal: Principal
    ) -> Invitation:
        """Invite somebody in the name of a caller who may do so.

        Raises:
            InvitationExists, InvitationLimitReached, InvitationsSentTooOften: As for `invite`.
        """
        organization_id, now = organization.organization_id, self._clock.now()
        await store.invitations.lock_all(tx, organization_id)
        await store.invitations.close_expired(tx, organization_id, email, now)
        if await store.invitations.waits_for(tx, organization_id, email):
            raise InvitationExists
        if await store.invitations.count_pending(tx, organization_id, now) >= PENDING_MAX:
            raise InvitationLimitReached(metadata={"invitations_max": str(PENDING_MAX)})
        await self._check_sends(tx, organization_id, email)
        invitation = Invitation(
            invitation_id=self._ids.uuid7(),
            organization_id=organization_id,
            organization_name=organization.name,
            email=email,
            role=role,
            state=InvitationState.PENDING,
            inviter_id=UUID(principal.subject),
            create_time=now,
            expire_time=now + GOOD_FOR,
        )
        token, digest = self._tokens.mint(Purpose.INVITATION)
        await store.invitations.insert(tx, invitation, digest)
        await self._send(tx, invitation, token, principal)
        await self._note(tx, invitation, "create", after=audited(invitation))
        return invitation

    async def resend(
        self, organization_id: UUID, invitation_id: UUID, principal: Principal, asked: Mutation[Invitation, Answer]
    ) -> Answer:
        """Send an invitation again, with another token; the token before it ends.

        Raises:
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nobody can join.
            InvitationNotFound: There is none.
            InvitationEnded: It does not wait any more.
            RoleInsufficient, RoleAboveOwn: The caller may not invite, or not to this role.
            InvitationsSentTooOften: It was sent a moment ago, or too often.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._resend, organization_id, invitation_id, principal
            )

    async def _resend(
        self, tx: Connection, organization_id: UUID, invitation_id: UUID, principal: Principal
    ) -> Invitation:
        await require_growth(tx, organization_id)
        now = self._clock.now()
        own = await current_role(tx, principal, organization_id, _INVITE, now)
        await store.invitations.lock_all(tx, organization_id)
        invitation = await store.invitations.lock(tx, organization_id, invitation_id, now)
        if invitation is None:
            raise InvitationNotFound
        if invitation.state is not InvitationState.PENDING:
            raise InvitationEnded(metadata={"state": invitation.state.value})
        require_included(own, invitation.role)
        await self._check_last_send(tx, invitation)
        await self._check_sends(tx, organization_id, invitation.email)
        expire_time = now + GOOD_FOR
        token, digest = self._tokens.mint(Purpose.INVITATION)
        await store.invitations.note_send(
            tx, organization_id, invitation_id, digest=digest, now=now, expire_time=expire_time
        )
        sent = await store.invitations.find(tx, organization_id, invitation_id, now)
        assert sent is not None, "its row is locked"  # noqa: S101
        await self._send(tx, sent, token, principal)
        await self._note(tx, sent, "resend", before=audited(invitation), after=audited(sent))
        return sent

    async def cancel(
        self, organization_id: UUID, invitation_id: UUID, principal: Principal, asked: Mutation[Invitation, Answer]
    ) -> Answer:
        """Take an invitation back; one that was taken back or has expired is returned as it is.

        Raises:
            RoleInsufficient: The caller may not invite (any more).
            InvitationNotFound: There is none.
            InvitationEnded: It was answered.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._cancel, organization_id, invitation_id, principal
            )

    async def _cancel(
        self, tx: Connection, organization_id: UUID, invitation_id: UUID, principal: Principal
    ) -> Invitation:
        now = self._clock.now()
        await current_role(tx, principal, organization_id, _INVITE, now)
        invitation = await store.invitations.lock(tx, organization_id, invitation_id, now)
        if invitation is None:
            raise InvitationNotFound
        if invitation.state in {InvitationState.ACCEPTED, InvitationState.DECLINED}:
            raise InvitationEnded(metadata={"state": invitation.state.value})
        if invitation.state is not InvitationState.PENDING:
            return invitation
        await store.invitations.answer(tx, organization_id, invitation_id, InvitationState.CANCELLED, now)
        cancelled = await store.invitations.find(tx, organization_id, invitation_id, now)
        assert cancelled is not None, "its row is locked"  # noqa: S101
        await self._note(tx, cancelled, "cancel", before=audited(invitation), after=audited(cancelled))
        return cancelled

    async def list(
        self, organization_id: UUID, state: InvitationState, *, before_id: UUID | None, limit: int
    ) -> list[Invitation]:
        """Return an organization's invitations in a state, newest first."""
        async with self._db.read(organization_id) as tx:
            return await store.invitations.list_of_organization(
                tx, organization_id, state, self._clock.now(), before_id=before_id, limit=limit
            )

    async def _check_last_send(self, tx: Connection, invitation: Invitation) -> None:
        _, last_time = await store.invitations.find_last_send(tx, invitation.organization_id, invitation.invitation_id)
        wait = last_time + SEND_AGAIN_AFTER - self._clock.now()
        if wait > timedelta():
            raise InvitationsSentTooOften(retry_after_seconds=wait.total_seconds())

    async def _check_sends(self, tx: Connection, organization_id: UUID, email: str) -> None:
        now = self._clock.now()
        count, first_time = await store.invitations.find_sends(tx, organization_id, email, since=now - _DAY)
        if count >= SENDS_PER_ADDRESS_AND_DAY_MAX:
            wait = (first_time or now) + _DAY - now
            raise InvitationsSentTooOften(
                metadata={"per_day_max": str(SENDS_PER_ADDRESS_AND_DAY_MAX)},
                retry_after_seconds=max(wait.total_seconds(), SEND_AGAIN_AFTER.total_seconds()),
            )

    async def _send(self, tx: Connection, invitation: Invitation, token: str, principal: Principal) -> None:
        inviter_name = OPERATOR_NAME
        if principal.organization_id == invitation.organization_id:
            inviter_name = await store.members.find_actor_name(tx, UUID(principal.subject)) or OPERATOR_NAME
        await self._mail.enqueue(
            tx,
            INVITATION,
            recipient=invitation.email,
            organization_id=invitation.organization_id,
            facts={
                "organization_name": invitation.organization_name,
                "inviter_name": inviter_name,
                "role": invitation.role.value,
                "link": self._mail.link(Page.INVITATION),
                "expire_time": invitation.expire_time.strftime("%d %B %Y, %H:%M UTC"),
            },
            secrets={"token": token},
        )

    async def _note(self, tx: Connection, invitation: Invitation, verb: str, **facts: Any) -> None:
        await self._audit.note(
            tx,
            organization_id=invitation.organization_id,
            action=f"invitation.{verb}",
            resource=f"invitation/{invitation.invitation_id}",
            **facts,
        )


def audited(invitation: Invitation) -> dict[str, Any]:
    """Return what the audit log says of an invitation."""
    return {
        "email": invitation.email,
        "role": invitation.role.value,
        "state": invitation.state.value,
        "expire_time": invitation.expire_time.isoformat(),
    }


async def remove_old(db: Database, clock: Clock) -> int:
    """Remove invitations that expired longer ago than `KEPT` and return how many there were; the daily clean-up."""
    removed = 0
    while True:
        async with db.system() as tx:
            count = await store.invitations.remove_ended(tx, before=clock.now() - KEPT, limit=REMOVED_AT_ONCE_MAX)
        removed += count
        if count < REMOVED_AT_ONCE_MAX:
            return removed
