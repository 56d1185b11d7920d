"""Where notification's sealed secrets are, for the rotation of data keys (`mesh/database/resealing.py`)."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.resealing import SealedRow, SealedTable
from mesh.secretbox import Sealed
from services.notification import store
from services.notification.model import sealing_context


async def _lock_emails(tx: Connection, newest: int, after: UUID | None, limit: int) -> list[SealedRow]:
    found = await store.lock_older_emails(tx, newest, after=after, limit=limit)
    return [
        SealedRow(row_id=email_id, sealed=sealed, context=sealing_context(organization_id, email_id))
        for organization_id, email_id, sealed in found
    ]


async def _replace_email(tx: Connection, row: SealedRow, sealed: Sealed) -> None:
    await store.replace_sealed_parameters(tx, row.row_id, sealed)


SEALED_TABLES: Final = (SealedTable(name="emails", lock_older=_lock_emails, replace=_replace_email),)
