"""Service accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.errors import OrganizationNotFound
from services.auth.model import Role, ServiceAccount

QUERIES: Final = load(__package__, "service_accounts.sql")


async def find_by_digest(tx: Connection, digests: Sequence[bytes], now: datetime) -> ServiceAccount | None:
    """Return the service account with one of the digests, unless it is revoked or expired. `db.system()` only."""
    row = await tx.fetchrow(QUERIES["select_service_account_by_digest"], digests, now)
    return _service_account(row) if row else None


async def touch(tx: Connection, account: ServiceAccount, now: datetime) -> None:
    """Note that a service account is in use, at most once per 15 minutes."""
    await tx.execute(QUERIES["touch_service_account"], account.organization_id, account.service_account_id, now)


async def lock(tx: Connection, organization_id: UUID) -> None:
    """Keep others from creating service accounts of an organization until the transaction ends."""
    await tx.execute(QUERIES["lock_service_accounts"], organization_id)


async def has(tx: Connection, organization_id: UUID, *, count: int, now: datetime) -> bool:
    """Tell whether an organization has at least so many service accounts that work."""
    return bool(await tx.fetchval(QUERIES["select_nth_usable_service_account"], organization_id, now, count))


async def insert(tx: Connection, account: ServiceAccount, *, digest: bytes, pepper_version: int) -> None:
    """Store a new service account.

    Raises:
        OrganizationNotFound: There is no such organization; the operator's people may name any.
    """
    values = (
        account.organization_id,
        account.service_account_id,
        account.name,
        account.role.value,
        digest,
        pepper_version,
        account.hint,
        account.creator_id,
        account.create_time,
        account.expire_time,
    )
    try:
        await tx.execute(QUERIES["insert_service_account"], *values)
    except asyncpg.ForeignKeyViolationError as error:
        raise OrganizationNotFound(f"{account.organization_id}") from error
    if account.platform_role is not None:
        await tx.execute(
            QUERIES["set_platform_role"], account.organization_id, account.service_account_id, account.platform_role
        )


async def find(tx: Connection, organization_id: UUID, service_account_id: UUID) -> ServiceAccount | None:
    """Return a service account."""
    row = await tx.fetchrow(QUERIES["select_service_account"], organization_id, service_account_id)
    return _service_account(row) if row else None


async def find_for_update(tx: Connection, organization_id: UUID, service_account_id: UUID) -> ServiceAccount | None:
    """Return a service account and keep others from changing it until the transaction ends."""
    row = await tx.fetchrow(QUERIES["select_service_account_for_update"], organization_id, service_account_id)
    return _service_account(row) if row else None


async def list_page(
    tx: Connection, organization_id: UUID, *, before_id: UUID | None, limit: int
) -> list[ServiceAccount]:
    """Return an organization's service accounts, newest first."""
    rows = await tx.fetch(QUERIES["select_service_accounts"], organization_id, before_id, limit)
    return [_service_account(row) for row in rows]


async def with_platform_roles(
    tx: Connection, organization_id: UUID, accounts: Sequence[ServiceAccount]
) -> list[ServiceAccount]:
    """Return the same service accounts with their platform roles. `db.system()` only."""
    ids = [account.service_account_id for account in accounts]
    rows = await tx.fetch(QUERIES["select_platform_roles_of_service_accounts"], organization_id, ids)
    found = {row["service_account_id"]: row["platform_role"] for row in rows}
    return [replace(account, platform_role=found.get(account.service_account_id)) for account in accounts]


async def update(tx: Connection, account: ServiceAccount) -> None:
    """Store name, role and expiry."""
    await tx.execute(
        QUERIES["update_service_account"],
        account.organization_id,
        account.service_account_id,
        account.name,
        account.role.value,
        account.expire_time,
    )


async def replace_token(
    tx: Connection,
    account: ServiceAccount,
    *,
    digest: bytes,
    pepper_version: int,
    previous_expire_time: datetime | None,
) -> None:
    """Store another token; the old one goes on working until an instant, or ends now."""
    await tx.execute(
        QUERIES["replace_service_account_token"],
        account.organization_id,
        account.service_account_id,
        digest,
        pepper_version,
        account.hint,
        previous_expire_time,
    )


async def revoke(tx: Connection, account: ServiceAccount, revoke_time: datetime) -> None:
    """Note when a service account was revoked."""
    await tx.execute(
        QUERIES["revoke_service_account"], account.organization_id, account.service_account_id, revoke_time
    )


def _service_account(row: Any) -> ServiceAccount:
    return ServiceAccount(**{**row, "role": Role(row["role"])})
