"""Where auth's sealed secrets are, for the rotation of data keys (`mesh/database/resealing.py`).

First answers of mutations are not among them: they live for a day, and a data key is kept for longer than that.
"""

from __future__ import annotations

import base64
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.resealing import SealedRow, SealedTable
from mesh.secretbox import Sealed
from services.auth import second_factors, signing_keys, store
from services.auth.mail import SEND_EMAIL


async def _lock_second_factors(tx: Connection, newest: int, after: UUID | None, limit: int) -> list[SealedRow]:
    found = await store.second_factors.lock_older(tx, newest, after=after, limit=limit)
    return [
        SealedRow(row_id=person_id, sealed=sealed, context=second_factors.context(person_id))
        for person_id, sealed in found
    ]


async def _replace_second_factor(tx: Connection, row: SealedRow, sealed: Sealed) -> None:
    await store.second_factors.replace_secret(tx, row.row_id, sealed)


async def _lock_emails(tx: Connection, newest: int, after: UUID | None, limit: int) -> list[SealedRow]:
    found = await store.sealed_jobs.lock_older(tx, SEND_EMAIL, newest, after=after, limit=limit)
    return [
        SealedRow(
            row_id=job_id,
            sealed=Sealed(key_version=payload["data_key_version"], ciphertext=base64.b64decode(payload["secrets"])),
            context=job_id.bytes,
        )
        for job_id, payload in found
    ]


async def _replace_email(tx: Connection, row: SealedRow, sealed: Sealed) -> None:
    changed: dict[str, Any] = {
        "data_key_version": sealed.key_version,
        "secrets": base64.b64encode(sealed.ciphertext).decode(),
    }
    await store.sealed_jobs.merge_payload(tx, row.row_id, changed)


async def _lock_signing_keys(tx: Connection, newest: int, after: str | None, limit: int) -> list[SealedRow]:
    found = await store.signing_keys.lock_older(tx, newest, after=after, limit=limit)
    return [SealedRow(row_id=key_id, sealed=sealed, context=signing_keys.context(key_id)) for key_id, sealed in found]


async def _replace_seed(tx: Connection, row: SealedRow, sealed: Sealed) -> None:
    await store.signing_keys.replace_seed(tx, row.row_id, sealed)


SEALED_TABLES: Final = (
    SealedTable(name="second_factors", lock_older=_lock_second_factors, replace=_replace_second_factor),
    SealedTable(name="jobs", lock_older=_lock_emails, replace=_replace_email),
    SealedTable(name="signing_keys", lock_older=_lock_signing_keys, replace=_replace_seed),
)
