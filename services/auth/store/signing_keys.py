"""The keys that session tokens are signed with, sealed. All of it is for `db.system()`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from mesh.database.connection import Connection
from mesh.database.sql import load
from mesh.secretbox import Sealed
from services.auth.model import SigningKey

QUERIES: Final = load(__package__, "signing_keys.sql")


async def lock(tx: Connection) -> None:
    """Keep others from adding a key for the rest of the transaction."""
    await tx.execute(QUERIES["lock_signing_keys"])


async def list_all(tx: Connection) -> list[SigningKey]:
    """Return all keys, the first to sign first."""
    return [
        SigningKey(
            key_id=row["key_id"],
            public_key=row["public_key"],
            sealed_seed=Sealed(key_version=row["data_key_version"], ciphertext=row["seed"]),
            active_time=row["active_time"],
            retire_time=row["retire_time"],
        )
        for row in await tx.fetch(QUERIES["select_signing_keys"])
    ]


async def insert(tx: Connection, key: SigningKey, now: datetime) -> None:
    """Add a key; no other is without a successor then."""
    await tx.execute(
        QUERIES["insert_signing_key"],
        key.key_id,
        key.public_key,
        key.sealed_seed.key_version,
        key.sealed_seed.ciphertext,
        now,
        key.active_time,
    )


async def retire(tx: Connection, retire_time: datetime) -> None:
    """Say when the key that has had no successor so far is not needed any more."""
    await tx.execute(QUERIES["retire_signing_keys"], retire_time)


async def remove_retired(tx: Connection, *, before: datetime) -> int:
    """Remove keys that were needed until before an instant and return how many there were."""
    return int((await tx.execute(QUERIES["remove_retired_signing_keys"], before)).rpartition(" ")[2])


async def lock_older(tx: Connection, newest: int, *, after: str | None, limit: int) -> list[tuple[str, Sealed]]:
    """Lock and return seeds that are sealed under another version than the newest, in the order of their keys."""
    rows = await tx.fetch(QUERIES["lock_older_signing_keys"], newest, after, limit)
    return [(row["key_id"], Sealed(key_version=row["data_key_version"], ciphertext=row["seed"])) for row in rows]


async def replace_seed(tx: Connection, key_id: str, sealed_seed: Sealed) -> None:
    """Store what a seed is sealed as now."""
    await tx.execute(QUERIES["replace_seed"], key_id, sealed_seed.key_version, sealed_seed.ciphertext)
