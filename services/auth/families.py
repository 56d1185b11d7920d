"""Sessions after the sign-in: refresh tokens that rotate, moving between organizations, signing out.

One sign-in and all the tokens that come of it are a family, and its session is the family's row. The access token lives
`mesh.rpc.tokens.SESSION_SECONDS`. A refresh token is good once: using it makes the next one, and the family goes on for
`IDLE_DAYS_MAX` from then, but never longer than `LIFE_DAYS_MAX` after the sign-in. Whoever has stolen a password's
worth of tokens is thus out for good some day, whatever else is overlooked.

**Reuse.** A token that is shown a second time was copied, or its owner never got the answer; nobody can tell which. The
family ends, so whoever holds its newest token is out as well, and the owner is told by e-mail and audit log (RFC 9700
section 4.14.2). That holds however close together the two uses are: clients with several tabs or processes refresh one
at a time. Tokens of families that have ended change nothing and are told to nobody.

**What runs at once.** A refresh is one statement: of several with one token, exactly one makes the next token. Opening
a session locks its person and their membership, so that a changed password, a removed member and "sign out everywhere"
cannot miss a session that is just being opened. Locks are taken in the order person, membership, session.

A refresh token says nothing about roles. Role, membership and the organization's state are read anew at each refresh.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.call import current_call
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import (
    MembershipMissing,
    OrganizationNotFound,
    RefreshRefused,
    SessionEnded,
    SessionNotFound,
)
from services.auth.mail import Mail
from services.auth.model import Membership, RevokeReason, Session, SessionTokens
from services.auth.refresh_tokens import RefreshTokens
from services.auth.signing_keys import SigningKeys

IDLE_DAYS_MAX: Final = 7
LIFE_DAYS_MAX: Final = 30
SESSIONS_PER_PERSON_MAX: Final = 50
ENDED_KEPT: Final = timedelta(days=1)
USED_KEPT: Final = timedelta(days=IDLE_DAYS_MAX)
REMOVED_AT_ONCE_MAX: Final = 10_000
SESSION_REUSE: Final = "session_reuse"


class SessionFamilies:
    """Opens, renews, moves and ends sessions.

    Args:
        db: Sessions and what their tokens say.
        signing_keys: Sign access tokens.
        refresh_tokens: Makes and reads refresh tokens.
        audit: Is told of whatever begins or ends.
        mail: Tells people of reuse.
        clock: Time of sessions.
        ids: Ids of sessions.
    """

    def __init__(
        self,
        *,
        db: Database,
        signing_keys: SigningKeys,
        refresh_tokens: RefreshTokens,
        audit: AuditLog,
        mail: Mail,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._signing_keys = signing_keys
        self._refresh_tokens = refresh_tokens
        self._audit = audit
        self._mail = mail
        self._clock = clock
        self._ids = ids

    async def open(self, tx: Connection, person_id: UUID, organization_id: UUID | None = None) -> SessionTokens:
        """Open a session for somebody who has proved who they are; beyond the most that one may have, old ones end.

        Args:
            tx: Of `db.system()`. Where what was proved can change, it holds the person's lock (`lock_person`) since
                before that was looked at.
            person_id: Who.
            organization_id: Which organization; None means the first that the person joined.

        Raises:
            OrganizationNotFound: The person is not a member of that organization.
            MembershipMissing: The person is not a member of any.
        """
        await store.sessions.lock_person(tx, person_id)
        membership = await self._choose(tx, person_id, organization_id)
        now, call = self._clock.now(), current_call()
        session = Session(
            session_id=self._ids.uuid7(),
            person_id=person_id,
            organization_id=membership.organization_id,
            create_time=now,
            last_use_time=now,
            expire_time=now + timedelta(days=IDLE_DAYS_MAX),
            end_time=now + timedelta(days=LIFE_DAYS_MAX),
            address=call.address,
            user_agent=call.user_agent,
        )
        minted = self._refresh_tokens.mint()
        await store.sessions.insert(tx, session, digest=minted.digest, pepper_version=minted.pepper_version)
        await store.sessions.revoke_surplus(tx, person_id, now=now, kept_max=SESSIONS_PER_PERSON_MAX)
        await self._audit.note(
            tx,
            organization_id=session.organization_id,
            action="session.create",
            resource=f"session/{session.session_id}",
            actor=person_id,
        )
        return await self._tokens(tx, session, membership, minted.token)

    async def refresh(self, token: str) -> SessionTokens:
        """Renew a session.

        Raises:
            RefreshRefused: The token is none of ours, was used before, or its session has ended.
        """
        digests = self._refresh_tokens.digests(token)
        if not digests:
            raise RefreshRefused("not a refresh token")
        async with self._db.system() as tx:
            renewed = await self._renew(tx, digests)
        if renewed is None:
            raise RefreshRefused
        return renewed

    async def _renew(self, tx: Connection, digests: list[bytes]) -> SessionTokens | None:
        """Return the new tokens; None where there are none, and then what follows is to be committed all the same."""
        now, minted = self._clock.now(), self._refresh_tokens.mint()
        session = await store.sessions.renew(
            tx,
            digests,
            now=now,
            expire_time=now + timedelta(days=IDLE_DAYS_MAX),
            new_digest=minted.digest,
            pepper_version=minted.pepper_version,
        )
        if session is None:
            await self._end_if_reused(tx, digests, now)
            return None
        membership = await store.people.find_membership(tx, session.person_id, session.organization_id)
        if membership is None:
            await store.sessions.revoke(tx, [session.session_id], reason=RevokeReason.MEMBERSHIP_ENDED)
            return None
        return await self._tokens(tx, session, membership, minted.token)

    async def _end_if_reused(self, tx: Connection, digests: list[bytes], now: datetime) -> None:
        session = await store.sessions.find_by_used_token(tx, digests, now)
        if session is None:
            return
        if not await store.sessions.revoke(tx, [session.session_id], reason=RevokeReason.REFRESH_TOKEN_REUSED):
            # Somebody else has just ended it; what they note is enough.
            return
        for membership in await store.people.list_memberships(tx, session.person_id):
            await self._audit.note(
                tx,
                organization_id=membership.organization_id,
                action="session.reuse",
                resource=f"session/{session.session_id}",
                details={"person_id": str(session.person_id)},
            )
        contact = await store.people.find_contact(tx, session.person_id)
        if contact is not None:
            await self._mail.enqueue(
                tx,
                SESSION_REUSE,
                recipient=contact.email,
                organization_id=None,
                facts={
                    "person_name": contact.name or contact.email,
                    "address": current_call().address or "unknown",
                    "time": now.isoformat(timespec="seconds"),
                },
            )

    async def switch(self, person_id: UUID, session_id: UUID | None, organization_id: UUID) -> SessionTokens:
        """Move the caller's session to another organization. Its refresh token stays good and is not made anew.

        Whoever has an access token alone thus never gets a refresh token for it.

        Raises:
            OrganizationNotFound: The person is not a member of that organization.
            SessionEnded: The session has ended.
        """
        if session_id is None:
            raise SessionEnded
        now = self._clock.now()
        async with self._db.system() as tx:
            membership = await store.people.lock_membership(tx, person_id, organization_id)
            if membership is None:
                raise OrganizationNotFound
            before = await store.sessions.find_of_person(tx, session_id, person_id)
            session = await store.sessions.move(
                tx, session_id, person_id=person_id, organization_id=organization_id, now=now
            )
            if session is None or before is None:
                raise SessionEnded
            await self._audit.note(
                tx,
                organization_id=organization_id,
                action="session.switch",
                resource=f"session/{session_id}",
                before={"organization_id": str(before.organization_id)},
                after={"organization_id": str(organization_id)},
            )
            return await self._tokens(tx, session, membership, "")

    async def list(self, person_id: UUID) -> list[Session]:
        """Return where a person is signed in, newest first."""
        async with self._db.system() as tx:
            return await store.sessions.list_live(tx, person_id, now=self._clock.now(), limit=SESSIONS_PER_PERSON_MAX)

    async def revoke(self, person_id: UUID, session_id: UUID) -> None:
        """End one of a person's sessions; one that has ended already stays as it is.

        Raises:
            SessionNotFound: The person has no such session.
        """
        async with self._db.system() as tx:
            session = await store.sessions.find_of_person(tx, session_id, person_id)
            if session is None:
                raise SessionNotFound
            if await store.sessions.revoke(tx, [session_id], reason=RevokeReason.SIGNED_OUT):
                await self._note_end(tx, session.organization_id, session_id)

    async def revoke_all(self, person_id: UUID, *, except_session: UUID | None) -> int:
        """End a person's sessions, but for one, and return how many there were."""
        async with self._db.system() as tx:
            await store.sessions.lock_person(tx, person_id)
            live = await store.sessions.list_live(tx, person_id, now=self._clock.now(), limit=SESSIONS_PER_PERSON_MAX)
            ended = set(await store.sessions.revoke_all(tx, person_id, except_session))
            ended_live = [session for session in live if session.session_id in ended]
            for session in ended_live:
                await self._note_end(tx, session.organization_id, session.session_id)
        return len(ended_live)

    async def _note_end(self, tx: Connection, organization_id: UUID, session_id: UUID) -> None:
        await self._audit.note(
            tx, organization_id=organization_id, action="session.revoke", resource=f"session/{session_id}"
        )

    async def _choose(self, tx: Connection, person_id: UUID, organization_id: UUID | None) -> Membership:
        if organization_id is None:
            memberships = await store.people.list_memberships(tx, person_id)
            if not memberships:
                raise MembershipMissing
            organization_id = memberships[0].organization_id
        membership = await store.people.lock_membership(tx, person_id, organization_id)
        if membership is None:
            raise OrganizationNotFound
        return membership

    async def _tokens(
        self, tx: Connection, session: Session, membership: Membership, refresh_token: str
    ) -> SessionTokens:
        platform_roles = await store.people.list_platform_roles(tx, session.person_id)
        signer = await self._signing_keys.signer(tx)
        access_token, expire_time = signer.issue(
            person_id=session.person_id,
            organization_id=membership.organization_id,
            role=membership.role.value,
            platform_roles=[role.removeprefix("platform_") for role in platform_roles],
            session_id=session.session_id,
            membership_version=membership.version,
            end_time=session.end_time,
        )
        return SessionTokens(
            access_token=access_token,
            expire_time=expire_time,
            refresh_token=refresh_token,
            refresh_expire_time=session.expire_time,
            session_id=session.session_id,
            organization_id=membership.organization_id,
            person_id=session.person_id,
            role=membership.role,
        )


async def remove_ended(db: Database, clock: Clock) -> int:
    """Remove sessions that ended longer than `ENDED_KEPT` ago, with their tokens, and return how many; the clean-up.

    Until then verifiers are told of them: no token of theirs lives that long.
    """
    removed, total = REMOVED_AT_ONCE_MAX, 0
    while removed == REMOVED_AT_ONCE_MAX:
        async with db.system() as tx:
            removed = await store.sessions.remove_ended(tx, before=clock.now() - ENDED_KEPT, limit=REMOVED_AT_ONCE_MAX)
        total += removed
    return total


async def remove_used_tokens(db: Database, clock: Clock) -> int:
    """Remove refresh tokens of sessions that go on, used longer than `USED_KEPT` ago, and return how many there were.

    A copy of one of them would not be noticed any more; unused, it would have expired by then.
    """
    removed, total = REMOVED_AT_ONCE_MAX, 0
    while removed == REMOVED_AT_ONCE_MAX:
        async with db.system() as tx:
            removed = await store.sessions.remove_used_tokens(
                tx, before=clock.now() - USED_KEPT, limit=REMOVED_AT_ONCE_MAX
            )
        total += removed
    return total
