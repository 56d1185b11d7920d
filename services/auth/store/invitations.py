"""Invitations to join organizations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Invitation, InvitationState, Role

QUERIES: Final = load(__package__, "invitations.sql")


async def lock_all(tx: Connection, organization_id: UUID) -> None:
    """Keep others from inviting to an organization until the transaction ends."""
    await tx.execute(QUERIES["lock_invitations"], organization_id)


async def insert(tx: Connection, invitation: Invitation, digest: bytes) -> None:
    """Store a new invitation that is being sent."""
    await tx.execute(
        QUERIES["insert_invitation"],
        invitation.organization_id,
        invitation.invitation_id,
        invitation.email,
        invitation.role.value,
        invitation.inviter_id,
        digest,
        invitation.create_time,
        invitation.expire_time,
    )


async def close_expired(tx: Connection, organization_id: UUID, email: str, now: datetime) -> None:
    """Note that nobody answered in time, so that the address can be invited again."""
    await tx.execute(QUERIES["close_expired"], organization_id, email, now)


async def waits_for(tx: Connection, organization_id: UUID, email: str) -> bool:
    """Tell whether an invitation for an address waits for an answer."""
    return bool(await tx.fetchval(QUERIES["select_pending_of_address"], organization_id, email))


async def count_pending(tx: Connection, organization_id: UUID, now: datetime) -> int:
    """Return how many invitations of an organization wait for an answer."""
    count: int = await tx.fetchval(QUERIES["count_pending"], organization_id, now)
    return count


async def find_sends(
    tx: Connection, organization_id: UUID, email: str, *, since: datetime
) -> tuple[int, datetime | None]:
    """Return how often an organization wrote to an address since an instant, and when first."""
    row = await tx.fetchrow(QUERIES["select_sends"], organization_id, email, since)
    assert row is not None, "it counts"  # noqa: S101
    return row["count"], row["first_time"]


async def find(tx: Connection, organization_id: UUID, invitation_id: UUID, now: datetime) -> Invitation | None:
    """Return an invitation of an organization."""
    row = await tx.fetchrow(QUERIES["select_invitation"], organization_id, invitation_id)
    return _invitation(row, now) if row else None


async def lock(tx: Connection, organization_id: UUID, invitation_id: UUID, now: datetime) -> Invitation | None:
    """Return an invitation and keep others from answering it until the transaction ends."""
    await tx.execute(QUERIES["lock_invitation"], organization_id, invitation_id)
    return await find(tx, organization_id, invitation_id, now)


async def find_by_token(tx: Connection, digests: Sequence[bytes], now: datetime) -> Invitation | None:
    """Return the invitation that a token is for."""
    row = await tx.fetchrow(QUERIES["select_invitation_by_token"], digests)
    return _invitation(row, now) if row else None


async def find_of_address(tx: Connection, email: str, invitation_id: UUID, now: datetime) -> Invitation | None:
    """Return an invitation that was sent to an address."""
    row = await tx.fetchrow(QUERIES["select_invitation_of_address"], email, invitation_id)
    return _invitation(row, now) if row else None


async def list_of_address(tx: Connection, email: str, now: datetime, *, limit: int) -> list[Invitation]:
    """Return the invitations that wait for an address, newest first."""
    rows = await tx.fetch(QUERIES["select_invitations_of_address"], email, now, limit)
    return [_invitation(row, now) for row in rows]


async def list_of_organization(
    tx: Connection, organization_id: UUID, state: InvitationState, now: datetime, *, before_id: UUID | None, limit: int
) -> list[Invitation]:
    """Return an organization's invitations in a state, newest first."""
    rows = await tx.fetch(QUERIES["select_invitations"], organization_id, before_id, state.value, now, limit)
    return [_invitation(row, now) for row in rows]


async def find_last_send(tx: Connection, organization_id: UUID, invitation_id: UUID) -> tuple[int, datetime]:
    """Return how often an invitation was sent, and when last."""
    row = await tx.fetchrow(QUERIES["select_last_send"], organization_id, invitation_id)
    assert row is not None, "its row is locked"  # noqa: S101
    return row["send_count"], row["send_time"]


async def note_send(
    tx: Connection, organization_id: UUID, invitation_id: UUID, *, digest: bytes, now: datetime, expire_time: datetime
) -> None:
    """Note that an invitation is sent again, with another token and another expiry."""
    await tx.execute(QUERIES["note_send"], organization_id, invitation_id, digest, now, expire_time)


async def answer(
    tx: Connection, organization_id: UUID, invitation_id: UUID, state: InvitationState, now: datetime
) -> None:
    """Note what became of an invitation."""
    await tx.execute(QUERIES["answer_invitation"], organization_id, invitation_id, state.value, now)


async def cancel_all(tx: Connection, organization_id: UUID, now: datetime) -> int:
    """Take back all invitations of an organization that wait, and return how many there were."""
    status = await tx.execute(QUERIES["cancel_all"], organization_id, now)
    return int(status.rpartition(" ")[2])


async def cancel_of_inviter(
    tx: Connection, organization_id: UUID, inviter_id: UUID, roles: Collection[Role], now: datetime
) -> list[UUID]:
    """Take back what waits of one inviter and gives one of these roles, and return which that was."""
    values = [role.value for role in roles]
    rows = await tx.fetch(QUERIES["cancel_of_inviter"], organization_id, inviter_id, values, now)
    return sorted(row["invitation_id"] for row in rows)


async def remove_ended(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove invitations that expired before an instant, whatever became of them, and return how many there were."""
    status = await tx.execute(QUERIES["remove_ended"], before, limit)
    return int(status.rpartition(" ")[2])


def _invitation(row: Any, now: datetime) -> Invitation:
    values = dict(row)
    state = InvitationState(values["state"])
    has_expired = state is InvitationState.PENDING and values["expire_time"] <= now
    values["state"] = InvitationState.EXPIRED if has_expired else state
    values["role"] = Role(values["role"])
    return Invitation(**values)
