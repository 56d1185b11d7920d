"""Reads and writes notification's tables. Every function runs inside the transaction that it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from mesh.secretbox import Sealed
from services.notification.model import Email, EmailState

QUERIES: Final = load(__package__)


async def insert_email(tx: Connection, email: Email, sealed: Sealed, now: datetime) -> None:
    """Store an e-mail that was taken; what it says is stored sealed."""
    await tx.execute(
        QUERIES["insert_email"],
        email.organization_id,
        email.email_id,
        email.recipient,
        email.template,
        sealed.key_version,
        sealed.ciphertext,
        now,
    )


async def lock_emails(tx: Connection, organization_id: UUID) -> None:
    """Keep others from adding e-mails of an organization until the transaction ends."""
    await tx.execute(QUERIES["lock_emails"], organization_id)


async def lock_recipient(tx: Connection, recipient: str) -> None:
    """Keep others from adding the installation's own e-mails to a recipient until the transaction ends."""
    await tx.execute(QUERIES["lock_recipient"], recipient)


async def find_nth_latest_email_to(
    tx: Connection, recipient: str, *, since: datetime, position: int
) -> datetime | None:
    """Return when the n-th latest of the installation's own e-mails to a recipient was taken, if after an instant."""
    found: datetime | None = await tx.fetchval(QUERIES["select_nth_latest_email_to"], recipient, since, position)
    return found


async def find_nth_latest_email(
    tx: Connection, organization_id: UUID, *, since: datetime, position: int
) -> datetime | None:
    """Return when the n-th latest e-mail was taken, if that was after an instant."""
    found: datetime | None = await tx.fetchval(QUERIES["select_nth_latest_email"], organization_id, since, position)
    return found


async def find_email(
    tx: Connection, organization_id: UUID, email_id: UUID, *, open_sealed: Callable[[Sealed], bytes]
) -> Email | None:
    """Return an e-mail; one that was delivered says nothing any more.

    Args:
        tx: A transaction of the organization.
        organization_id: Whose e-mail it is.
        email_id: Which one.
        open_sealed: Opens what it says.
    """
    row = await tx.fetchrow(QUERIES["select_email"], organization_id, email_id)
    if row is None:
        return None
    encoded = row["parameters"] or b"{}"
    if row["sealed_parameters"] is not None:
        encoded = open_sealed(Sealed(key_version=row["data_key_version"], ciphertext=row["sealed_parameters"]))
    return Email(
        email_id=row["email_id"],
        organization_id=row["organization_id"],
        recipient=row["recipient"],
        template=row["template"],
        parameters=json.loads(encoded),
        state=EmailState(row["state"]),
    )


async def end_email(
    tx: Connection, organization_id: UUID, email_id: UUID, *, state: EmailState, now: datetime, error: str | None = None
) -> None:
    """Note what became of an e-mail."""
    await tx.execute(QUERIES["end_email"], organization_id, email_id, state.value, now, error)


async def remove_delivered(tx: Connection, *, before: datetime, limit: int) -> int:
    """Remove e-mails that were delivered before an instant and return their number."""
    return int(str(await tx.execute(QUERIES["remove_delivered"], before, limit)).rpartition(" ")[2])


async def remove_emails_to(tx: Connection, recipient: str, *, limit: int) -> int:
    """Remove e-mails to an address in lower case, and the jobs that would deliver them; return their number."""
    return int(await tx.fetchval(QUERIES["remove_emails_to"], recipient, limit))


async def lock_older_emails(
    tx: Connection, newest: int, *, after: UUID | None, limit: int
) -> list[tuple[UUID, UUID, Sealed]]:
    """Lock and return what is sealed under another version than the newest, with its e-mail's organization and id."""
    rows = await tx.fetch(QUERIES["lock_older_emails"], newest, after, limit)
    return [
        (
            row["organization_id"],
            row["email_id"],
            Sealed(key_version=row["data_key_version"], ciphertext=row["sealed_parameters"]),
        )
        for row in rows
    ]


async def replace_sealed_parameters(tx: Connection, email_id: UUID, sealed: Sealed) -> None:
    """Store what an e-mail's parameters are sealed as now."""
    await tx.execute(QUERIES["replace_sealed_parameters"], email_id, sealed.key_version, sealed.ciphertext)
