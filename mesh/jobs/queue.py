"""Adds jobs and looks after those that have ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.database.sql import load
from mesh.observability import current_traceparent

QUERIES: Final = load(__package__)
PAYLOAD_BYTES_MAX: Final = 64 * 1024
DONE_KEPT: Final = timedelta(days=7)
REMOVED_AT_ONCE_MAX: Final = 10_000


class PermanentFailure(Exception):
    """Trying again cannot help; the job becomes a dead letter at once."""


class PayloadTooLarge(ValueError):
    """A job carries ids and small facts, not documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work. `job_id` is the idempotency key of whatever it causes elsewhere."""

    job_id: UUID
    kind: str
    organization_id: UUID | None
    payload: Mapping[str, Any]
    attempt_count: int
    traceparent: str | None = None
    last_error: str | None = None


async def enqueue(
    tx: Connection,
    kind: str,
    payload: Mapping[str, Any],
    *,
    job_id: UUID,
    organization_id: UUID | None = None,
    run_at: datetime | None = None,
    dedupe_key: str | None = None,
) -> bool:
    """Add a job in the transaction of the fact that causes it.

    Args:
        tx: The fact's transaction, of either role.
        kind: Names the handler.
        payload: JSON values, at most `PAYLOAD_BYTES_MAX`; no secrets.
        job_id: A new UUIDv7.
        organization_id: Whose work it is; for logs and operators.
        run_at: Not before this instant; None means at once.
        dedupe_key: With one, a kind's second job with the same key is not added while the first is known.

    Returns:
        False where the dedupe key was known.

    Raises:
        PayloadTooLarge: The payload is too large.
    """
    encoded = json.dumps(payload, separators=(",", ":"))
    if len(encoded.encode()) > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(f"{kind}: {len(encoded)} characters")
    status = await tx.execute(
        QUERIES["enqueue"], job_id, kind, organization_id, encoded, dedupe_key, run_at, current_traceparent()
    )
    return str(status).endswith(" 1")


async def dead_letters(tx: Connection, *, limit: int = 100) -> list[Job]:
    """Return jobs that were given up, the latest first."""
    return [to_job(row, last_error=row["last_error"]) for row in await tx.fetch(QUERIES["dead_letters"], limit)]


async def retry_dead_letter(tx: Connection, job_id: UUID) -> bool:
    """Put a dead letter back with all its attempts; False where there is none with this id."""
    return str(await tx.execute(QUERIES["retry_dead_letter"], job_id)).endswith(" 1")


async def remove_finished(db: Database, clock: Clock) -> int:
    """Remove jobs that were done longer than `DONE_KEPT` ago and return their number; dead letters stay."""
    removed = 0
    while True:
        async with db.system() as tx:
            status = await tx.execute(QUERIES["remove_finished"], clock.now() - DONE_KEPT, REMOVED_AT_ONCE_MAX)
        count = int(str(status).rpartition(" ")[2])
        removed += count
        if count < REMOVED_AT_ONCE_MAX:
            return removed


def to_job(row: Any, *, last_error: str | None = None) -> Job:
    """Read a job's row."""
    return Job(
        job_id=row["job_id"],
        kind=row["kind"],
        organization_id=row["organization_id"],
        payload=json.loads(row["payload"]),
        attempt_count=row["attempt_count"],
        traceparent=row["trace_context"],
        last_error=last_error,
    )
