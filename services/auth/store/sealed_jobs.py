"""Jobs whose payload has something sealed in it, for the rotation of data keys. All of it is for `db.system()`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load

QUERIES: Final = load(__package__, "sealed_jobs.sql")


async def lock_older(
    tx: Connection, kind: str, newest: int, *, after: UUID | None, limit: int
) -> list[tuple[UUID, Mapping[str, Any]]]:
    """Lock and return jobs of a kind that wait and are sealed under another version than the newest, in id order."""
    rows = await tx.fetch(QUERIES["lock_older_jobs"], kind, newest, after, limit)
    return [(row["job_id"], json.loads(row["payload"])) for row in rows]


async def merge_payload(tx: Connection, job_id: UUID, changed: Mapping[str, Any]) -> None:
    """Replace values of a job's payload."""
    await tx.execute(QUERIES["merge_payload"], job_id, json.dumps(dict(changed)))
