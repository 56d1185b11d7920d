"""Sessions and their refresh tokens. All of it is for `db.system()`: a session is its person's, no organization's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection, Row
from mesh.database.sql import load
from services.auth.model import RevokeReason, Session

QUERIES: Final = load(__package__, "sessions.sql")


async def insert(tx: Connection, session: Session, *, digest: bytes, pepper_version: int) -> None:
    """Store a new session and what is stored of its first refresh token."""
    await tx.execute(
        QUERIES["insert_session"],
        session.session_id,
        session.person_id,
        session.organization_id,
        session.create_time,
        session.expire_time,
        session.end_time,
        session.address,
        session.user_agent,
    )
    await tx.execute(QUERIES["insert_refresh_token"], digest, session.session_id, pepper_version, session.create_time)


async def renew(
    tx: Connection,
    digests: Sequence[bytes],
    *,
    now: datetime,
    expire_time: datetime,
    new_digest: bytes,
    pepper_version: int,
) -> Session | None:
    """Use a refresh token and give its session another one; None where it is not good (any more)."""
    row = await tx.fetchrow(QUERIES["renew_session"], digests, now, expire_time, new_digest, pepper_version)
    return Session(**row) if row else None


async def find_by_used_token(tx: Connection, digests: Sequence[bytes], now: datetime) -> Session | None:
    """Return the session that goes on although a token of it that was used is shown again."""
    row = await tx.fetchrow(QUERIES["select_session_of_used_token"], digests, now)
    return Session(**row) if row else None


async def list_live(tx: Connection, person_id: UUID, *, now: datetime, limit: int) -> list[Session]:
    """Return where a person is signed in, newest first."""
    return [Session(**row) for row in await tx.fetch(QUERIES["select_live_sessions"], person_id, now, limit)]


async def find_of_person(tx: Connection, session_id: UUID, person_id: UUID) -> Session | None:
    """Return a person's session, whether it has ended or not."""
    row = await tx.fetchrow(QUERIES["select_session_of_person"], session_id, person_id)
    return Session(**row) if row else None


async def move(
    tx: Connection, session_id: UUID, *, person_id: UUID, organization_id: UUID, now: datetime
) -> Session | None:
    """Move a person's session to another organization; None where it has ended."""
    row = await tx.fetchrow(QUERIES["move_session"], session_id, person_id, organization_id, now)
    return Session(**row) if row else None


async def lock_person(tx: Connection, person_id: UUID) -> None:
    """Keep everybody else from opening or ending all of a person's sessions, and from changing their account."""
    await tx.execute(QUERIES["lock_person"], person_id)


async def revoke(
    tx: Connection, session_ids: Sequence[UUID], *, reason: RevokeReason = RevokeReason.SIGNED_OUT
) -> list[UUID]:
    """End sessions and return those that had not ended yet. Their tokens are refused from the commit on."""
    return _ids(await tx.fetch(QUERIES["revoke_sessions"], session_ids, reason.value))


async def revoke_all(
    tx: Connection,
    person_id: UUID,
    except_session: UUID | None = None,
    *,
    reason: RevokeReason = RevokeReason.SIGNED_OUT_EVERYWHERE,
) -> list[UUID]:
    """End a person's sessions, in whatever organizations, but for one; a sign-in that is under way waits for this."""
    await lock_person(tx, person_id)
    return _ids(await tx.fetch(QUERIES["revoke_sessions_of_person"], person_id, except_session, reason.value))


async def revoke_in_organization(
    tx: Connection, person_id: UUID, organization_id: UUID, *, reason: RevokeReason = RevokeReason.MEMBERSHIP_ENDED
) -> list[UUID]:
    """End a person's sessions in one organization."""
    return _ids(await tx.fetch(QUERIES["revoke_sessions_of_membership"], organization_id, person_id, reason.value))


async def revoke_organization(
    tx: Connection, organization_id: UUID, *, reason: RevokeReason = RevokeReason.ORGANIZATION_DELETED
) -> list[UUID]:
    """End everybody's sessions in one organization."""
    return _ids(await tx.fetch(QUERIES["revoke_sessions_of_organization"], organization_id, reason.value))


async def revoke_surplus(tx: Connection, person_id: UUID, *, now: datetime, kept_max: int) -> list[UUID]:
    """End what a person has beyond so many sessions; the caller holds the person's lock."""
    reason = RevokeReason.TOO_MANY.value
    return _ids(await tx.fetch(QUERIES["revoke_surplus_sessions"], person_id, now, kept_max, reason))


async def remove_ended(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove sessions that ended before an instant, with their tokens, and return how many there were."""
    return _count(await tx.execute(QUERIES["remove_ended_sessions"], before, limit))


async def remove_used_tokens(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove refresh tokens that were used before an instant and return how many there were."""
    return _count(await tx.execute(QUERIES["remove_used_refresh_tokens"], before, limit))


def _ids(rows: Sequence[Row]) -> list[UUID]:
    return sorted(row["session_id"] for row in rows)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
