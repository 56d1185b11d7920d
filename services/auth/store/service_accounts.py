"""Service accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.model import Role, ServiceAccount

QUERIES: Final = load(__package__, "service_accounts.sql")


async def find_by_digest(tx: Connection, digests: Sequence[bytes], now: datetime) -> ServiceAccount | None:
    """Return the service account with one of the digests, unless it is revoked or expired."""
    row = await tx.fetchrow(QUERIES["select_service_account"], digests, now)
    if row is None:
        return None
    return ServiceAccount(
        service_account_id=row["service_account_id"],
        organization_id=row["organization_id"],
        role=Role(row["role"]),
        platform_role=row["platform_role"],
    )
