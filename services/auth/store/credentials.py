"""What people asked for by e-mail: another password, another address. All of it is for `db.system()`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import CredentialRequest, Person

QUERIES: Final = load(__package__, "credentials.sql")


async def insert_password_reset(
    tx: Connection, request_id: UUID, person: Person, *, digest: bytes, now: datetime, expire_time: datetime
) -> bool:
    """Store that a person may set a password with a token; False where it is stored already."""
    inserted = await tx.fetchval(
        QUERIES["insert_password_reset"],
        request_id,
        person.person_id,
        digest,
        person.credential_version,
        now,
        expire_time,
    )
    return inserted is not None


async def count_password_resets(tx: Connection, person_id: UUID, *, since: datetime) -> int:
    """Return how many tokens for a new password a person was sent since an instant."""
    return int(await tx.fetchval(QUERIES["count_password_resets"], person_id, since))


async def find_password_reset(tx: Connection, digests: Sequence[bytes], now: datetime) -> CredentialRequest | None:
    """Return what a token for a new password is for, unless its time is over."""
    row = await tx.fetchrow(QUERIES["select_password_reset"], digests, now)
    return CredentialRequest(**row) if row else None


async def take_password_reset(tx: Connection, request_id: UUID) -> bool:
    """Use a token for a new password up; False where it is gone."""
    return await tx.fetchval(QUERIES["take_password_reset"], request_id) is not None


async def insert_email_change(
    tx: Connection, request: CredentialRequest, *, digest: bytes, now: datetime, expire_time: datetime
) -> bool:
    """Store that a person may take another address with a token; False where it is stored already."""
    inserted = await tx.fetchval(
        QUERIES["insert_email_change"],
        request.request_id,
        request.person_id,
        request.new_email,
        digest,
        request.credential_version,
        now,
        expire_time,
    )
    return inserted is not None


async def count_email_changes(tx: Connection, person_id: UUID, *, since: datetime) -> int:
    """Return how many tokens for another address a person had sent since an instant."""
    return int(await tx.fetchval(QUERIES["count_email_changes"], person_id, since))


async def find_email_change(tx: Connection, digests: Sequence[bytes], now: datetime) -> CredentialRequest | None:
    """Return what a token for another address is for, unless its time is over."""
    row = await tx.fetchrow(QUERIES["select_email_change"], digests, now)
    return CredentialRequest(**row) if row else None


async def take_email_change(tx: Connection, request_id: UUID) -> bool:
    """Use a token for another address up; False where it is gone."""
    return await tx.fetchval(QUERIES["take_email_change"], request_id) is not None


async def remove_requests(tx: Connection, person_id: UUID) -> None:
    """Remove all tokens of a person."""
    await tx.execute(QUERIES["remove_requests"], person_id)


async def remove_expired(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove tokens whose time was over before an instant, at most so many of each kind; return how many."""
    removed = 0
    for name in ("remove_expired_password_resets", "remove_expired_email_changes"):
        removed += int(str(await tx.execute(QUERIES[name], before, limit)).rpartition(" ")[2])
    return removed
