"""Registrations that wait for the proof that their address is read by whoever claims it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import NewRegistration, Registration

QUERIES: Final = load(__package__, "registrations.sql")


async def insert(
    tx: Connection, registration_id: UUID, new: NewRegistration, *, password_hash: str, now: datetime
) -> None:
    """Store a registration whose e-mail is still to be written."""
    await tx.execute(
        QUERIES["insert_registration"],
        registration_id,
        new.email,
        password_hash,
        new.name,
        new.organization_name,
        new.currency_code,
        new.time_zone,
        now,
    )


async def repeat(tx: Connection, registration_id: UUID, email: str, *, since: datetime) -> None:
    """Store a copy of the newest registration for an address, if there is one, whose e-mail is still to be written."""
    await tx.execute(QUERIES["repeat_registration"], registration_id, email, since)


async def lock_unmailed(tx: Connection, registration_id: UUID) -> str | None:
    """Return the address of a registration whose e-mail is still to be written, and keep others from writing it."""
    email: str | None = await tx.fetchval(QUERIES["lock_unmailed_registration"], registration_id)
    return email


async def count_mails(tx: Connection, email: str, *, since: datetime) -> int:
    """Return how many e-mails about registrations an address was sent since an instant."""
    return int(await tx.fetchval(QUERIES["count_registration_mails"], email, since))


async def note_mail(
    tx: Connection, registration_id: UUID, now: datetime, *, digest: bytes | None, expire_time: datetime | None
) -> None:
    """Note that a registration's e-mail was written, and which token is in it."""
    await tx.execute(QUERIES["note_registration_mail"], registration_id, now, digest, expire_time)


async def find(tx: Connection, digests: Sequence[bytes], now: datetime) -> Registration | None:
    """Return the registration whose token has one of the digests, unless the token's time is over."""
    row = await tx.fetchrow(QUERIES["select_registration"], digests, now)
    return Registration(**row) if row else None


async def take(tx: Connection, registration_id: UUID) -> bool:
    """Remove a registration; False where it is gone already."""
    return await tx.fetchval(QUERIES["take_registration"], registration_id) is not None


async def remove_of(tx: Connection, email: str) -> None:
    """Remove all registrations for an address."""
    await tx.execute(QUERIES["remove_registrations_of"], email)


async def remove_old(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove registrations that began before an instant and whose token is over; return how many."""
    return int(str(await tx.execute(QUERIES["remove_old_registrations"], before, limit)).rpartition(" ")[2])
