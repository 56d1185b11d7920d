"""Second factors and their recovery codes. All of it is for `db.system()`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from mesh.secretbox import Sealed
from services.auth.model import SecondFactor

QUERIES: Final = load(__package__, "second_factors.sql")


async def lock(tx: Connection, person_id: UUID) -> SecondFactor | None:
    """Return a person's second factor, confirmed or not, and keep others from trying codes."""
    row = await tx.fetchrow(QUERIES["lock_second_factor"], person_id)
    if row is None:
        return None
    return SecondFactor(
        person_id=row["person_id"],
        sealed_secret=Sealed(key_version=row["data_key_version"], ciphertext=row["secret"]),
        newest_step=row["newest_step"],
        failure_level=row["failure_level"],
        failure_time=row["failure_time"],
        create_time=row["create_time"],
        confirm_time=row["confirm_time"],
    )


async def put(tx: Connection, person_id: UUID, sealed_secret: Sealed, now: datetime) -> bool:
    """Store a second factor that waits to be confirmed; False where there is one that is in force."""
    stored = await tx.fetchval(
        QUERIES["put_second_factor"], person_id, sealed_secret.key_version, sealed_secret.ciphertext, now
    )
    return stored is not None


async def confirm(tx: Connection, person_id: UUID, now: datetime) -> None:
    """Put a second factor in force."""
    await tx.execute(QUERIES["confirm_second_factor"], person_id, now)


async def note_step(tx: Connection, person_id: UUID, step: int) -> None:
    """Note which code was accepted last."""
    await tx.execute(QUERIES["note_step"], person_id, step)


async def note_failure(tx: Connection, person_id: UUID, *, level: float, now: datetime) -> None:
    """Note how many failures are not forgotten yet."""
    await tx.execute(QUERIES["note_failure"], person_id, level, now)


async def remove(tx: Connection, person_id: UUID) -> None:
    """Remove a second factor and its recovery codes."""
    await tx.execute(QUERIES["remove_second_factor"], person_id)


async def replace_recovery_codes(tx: Connection, person_id: UUID, digests: Sequence[bytes], now: datetime) -> None:
    """Store recovery codes in place of all others."""
    await tx.execute(QUERIES["remove_recovery_codes"], person_id)
    await tx.execute(QUERIES["insert_recovery_codes"], person_id, list(digests), now)


async def use_recovery_code(tx: Connection, person_id: UUID, digests: Sequence[bytes], now: datetime) -> bool:
    """Use a recovery code up; False where there is none such, or it was used."""
    return await tx.fetchval(QUERIES["use_recovery_code"], person_id, list(digests), now) is not None


async def count_recovery_codes(tx: Connection, person_id: UUID) -> int:
    """Return how many recovery codes are left."""
    return int(await tx.fetchval(QUERIES["count_recovery_codes"], person_id))


async def lock_older(tx: Connection, newest: int, *, after: UUID | None, limit: int) -> list[tuple[UUID, Sealed]]:
    """Lock and return secrets that are sealed under another version than the newest, in the order of their people."""
    rows = await tx.fetch(QUERIES["lock_older_second_factors"], newest, after, limit)
    return [(row["person_id"], Sealed(key_version=row["data_key_version"], ciphertext=row["secret"])) for row in rows]


async def replace_secret(tx: Connection, person_id: UUID, sealed_secret: Sealed) -> None:
    """Store what a secret is sealed as now."""
    await tx.execute(QUERIES["replace_secret"], person_id, sealed_secret.key_version, sealed_secret.ciphertext)
