"""Rotation of data keys: rows that are sealed under an older key are sealed anew under the newest one.

A service describes where its sealed secrets are (`SealedTable`) and runs `reseal` in a daily job. Rows are taken in the
order of their ids, in parts, each part in a transaction of its own that locks its rows, so that nobody's change of a
row is overwritten and nothing is held for long. A row that does not open (its key was taken away too early, or somebody
changed it) is left as it is and counted; the others go on.

The log says how many rows were sealed anew and how many could not be. Once a run says that there was nothing to do and
nothing broken, the older key can go (`docs/configuration.md`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.secretbox import SealBroken, Sealed, SecretBox

ROWS_AT_ONCE_MAX: Final = 200
DONE: Final = "data_keys_resealed"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """A row with a sealed secret."""

    row_id: Any
    sealed: Sealed
    context: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTable:
    """Where sealed secrets are.

    Args:
        name: For the log.
        lock_older: Locks and returns rows that are sealed under another version than the newest, in the order of their
            ids; takes the newest version, the id to go on behind (None at first), and how many at most.
        replace: Stores what a row's secret is sealed as now.
    """

    name: str
    lock_older: Callable[[Connection, int, Any, int], Awaitable[list[SealedRow]]]
    replace: Callable[[Connection, SealedRow, Sealed], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """What a run did."""

    sealed_count: int
    broken_count: int


async def reseal(db: Database, box: SecretBox, table: SealedTable) -> Resealed:
    """Seal what is sealed under an older key anew, and say how much it was.

    Args:
        db: The service's tables.
        box: Has all keys that may be in the table; the newest seals.
        table: Where to look.
    """
    sealed_count = broken_count = 0
    last_id: Any = None
    while True:
        async with db.system() as tx:
            rows = await table.lock_older(tx, box.newest_version, last_id, ROWS_AT_ONCE_MAX)
            for row in rows:
                try:
                    secret = box.open(row.sealed, row.context)
                except SealBroken:
                    broken_count += 1
                    continue
                await table.replace(tx, row, box.seal(secret, row.context))
                sealed_count += 1
        if len(rows) < ROWS_AT_ONCE_MAX:
            break
        last_id = rows[-1].row_id
    note = log.error if broken_count else log.info
    note(DONE, table=table.name, sealed_count=sealed_count, broken_count=broken_count)
    return Resealed(sealed_count=sealed_count, broken_count=broken_count)
