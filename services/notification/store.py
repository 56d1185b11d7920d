"""Reads and writes notification's tables. Every function runs inside the transaction that it is given."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.notification.model import Email, EmailState

QUERIES: Final = load(__package__)


async def insert_email(tx: Connection, email: Email, now: datetime) -> None:
    """Store an e-mail that was taken."""
    await tx.execute(
        QUERIES["insert_email"],
        email.organization_id,
        email.email_id,
        email.recipient,
        email.template,
        json.dumps(dict(email.parameters)),
        now,
    )


async def lock_emails(tx: Connection, organization_id: UUID) -> None:
    """Keep others from adding e-mails of an organization until the transaction ends."""
    await tx.execute(QUERIES["lock_emails"], organization_id)


async def find_nth_latest_email(
    tx: Connection, organization_id: UUID, *, since: datetime, position: int
) -> datetime | None:
    """Return when the n-th latest e-mail was taken, if that was after an instant."""
    found: datetime | None = await tx.fetchval(QUERIES["select_nth_latest_email"], organization_id, since, position)
    return found


async def find_email(tx: Connection, organization_id: UUID, email_id: UUID) -> Email | None:
    """Return an e-mail."""
    row = await tx.fetchrow(QUERIES["select_email"], organization_id, email_id)
    if row is None:
        return None
    values = {**row, "parameters": json.loads(row["parameters"]), "state": EmailState(row["state"])}
    return Email(**values)


async def end_email(
    tx: Connection, organization_id: UUID, email_id: UUID, *, state: EmailState, now: datetime, error: str | None = None
) -> None:
    """Note what became of an e-mail."""
    await tx.execute(QUERIES["end_email"], organization_id, email_id, state.value, now, error)


async def remove_delivered(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove e-mails that were delivered before an instant and return their number."""
    return int(str(await tx.execute(QUERIES["remove_delivered"], before, limit)).rpartition(" ")[2])
