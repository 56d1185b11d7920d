"""API keys and their grants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.errors import OrganizationNotFound
from services.auth.model import ApiKey, KeyGrant, KeyMode, KeyState, OrganizationState

QUERIES: Final = load(__package__, "keys.sql")


async def find_grants(tx: Connection, digests: Sequence[bytes]) -> list[KeyGrant]:
    """Return the grants of the digests that are known."""
    return _grants(await tx.fetch(QUERIES["select_grants_by_digest"], digests))


async def find_changed_grants(tx: Connection, keys: Sequence[tuple[UUID, UUID]]) -> list[KeyGrant]:
    """Return the grants of keys named by (organization, key)."""
    organization_ids, api_key_ids = [key[0] for key in keys], [key[1] for key in keys]
    return _grants(await tx.fetch(QUERIES["select_grants_by_key"], organization_ids, api_key_ids))


async def find_organizations_grants(tx: Connection, organization_ids: Sequence[UUID]) -> list[KeyGrant]:
    """Return the grants of all keys of some organizations that are not revoked."""
    return _grants(await tx.fetch(QUERIES["select_grants_by_organization"], organization_ids))


async def take_snapshot(
    tx: Connection, *, keys_max: int, now: datetime, part_size: int
) -> Iterator[tuple[KeyGrant, ...]]:
    """Return the keys that can serve a request, most recently used first, in parts.

    A part is converted when it is asked for: a hundred thousand keys at once would hold up the event loop.
    """
    rows = await tx.fetch(QUERIES["select_snapshot"], keys_max, now)
    return (tuple(_grants(rows[at : at + part_size])) for at in range(0, len(rows), part_size))


async def touch_keys(tx: Connection, digests: Sequence[bytes], now: datetime) -> None:
    """Note that keys are in use."""
    await tx.execute(QUERIES["touch_keys"], digests, now)


async def insert_api_key(tx: Connection, api_key: ApiKey, *, digest: bytes, pepper_version: int) -> None:
    """Store a new key.

    Raises:
        OrganizationNotFound: There is no such organization; the operator's people may name any.
    """
    values = (
        api_key.organization_id,
        api_key.api_key_id,
        digest,
        pepper_version,
        api_key.name,
        api_key.hint,
        api_key.mode.value,
        list(api_key.scopes),
        list(api_key.allowed_ips),
        api_key.external_subject,
        api_key.creator_id,
        api_key.create_time,
        api_key.expire_time,
    )
    try:
        await tx.execute(QUERIES["insert_api_key"], *values)
    except asyncpg.ForeignKeyViolationError as error:
        raise OrganizationNotFound(f"{api_key.organization_id}") from error


async def lock_api_keys(tx: Connection, organization_id: UUID) -> None:
    """Keep others from creating keys of an organization until the transaction ends."""
    await tx.execute(QUERIES["lock_api_keys"], organization_id)


async def find_nth_latest_creation(
    tx: Connection, organization_id: UUID, creator_id: UUID, *, since: datetime, position: int
) -> datetime | None:
    """Return when the n-th latest key of a creator was created, if that was after an instant."""
    found: datetime | None = await tx.fetchval(
        QUERIES["select_nth_latest_creation"], organization_id, creator_id, since, position
    )
    return found


async def has_api_keys(tx: Connection, organization_id: UUID, *, count: int, now: datetime) -> bool:
    """Tell whether an organization has at least so many keys that can serve a request."""
    return bool(await tx.fetchval(QUERIES["select_nth_usable_key"], organization_id, now, count))


async def lock_api_key(tx: Connection, organization_id: UUID, api_key_id: UUID) -> ApiKey | None:
    """Return a key and keep others from changing it until the transaction ends."""
    row = await tx.fetchrow(QUERIES["select_api_key_for_update"], organization_id, api_key_id)
    return _api_key(row) if row else None


async def revoke_api_key(tx: Connection, organization_id: UUID, api_key_id: UUID, revoke_time: datetime) -> None:
    """Note when a key was revoked."""
    await tx.execute(QUERIES["revoke_api_key"], organization_id, api_key_id, revoke_time)


async def list_api_keys(
    tx: Connection, organization_id: UUID, *, creator_id: UUID | None, before_id: UUID | None, limit: int
) -> list[ApiKey]:
    """Return an organization's keys, or those that one creator made, newest first."""
    if creator_id is None:
        rows = await tx.fetch(QUERIES["select_api_keys"], organization_id, before_id, limit)
    else:
        rows = await tx.fetch(QUERIES["select_api_keys_of_creator"], organization_id, creator_id, before_id, limit)
    return [_api_key(row) for row in rows]


async def find_api_keys(tx: Connection, organization_id: UUID, api_key_ids: Sequence[UUID]) -> dict[UUID, ApiKey]:
    """Return the keys of an organization that exist, by id."""
    rows = await tx.fetch(QUERIES["select_api_keys_by_id"], organization_id, api_key_ids)
    return {row["api_key_id"]: _api_key(row) for row in rows}


def _grants(rows: Sequence[Any]) -> list[KeyGrant]:
    return [
        KeyGrant(
            digest=row["digest"],
            api_key_id=row["api_key_id"],
            organization_id=row["organization_id"],
            mode=KeyMode(row["mode"]),
            state=_key_state(row),
            scopes=tuple(row["scopes"]),
            allowed_ips=tuple(row["allowed_ips"]),
            external_subject=row["external_subject"],
            expire_time=row["expire_time"],
            version=row["version"],
        )
        for row in rows
    ]


def _key_state(row: Any) -> KeyState:
    organization_state = OrganizationState(row["organization_state"])
    if row["revoke_time"] is not None or organization_state is OrganizationState.DELETED:
        return KeyState.REVOKED
    if organization_state is OrganizationState.SUSPENDED:
        return KeyState.ORGANIZATION_SUSPENDED
    return KeyState.ACTIVE


def _api_key(row: Any) -> ApiKey:
    values = dict(row)
    values["mode"] = KeyMode(values["mode"])
    values["scopes"] = tuple(values["scopes"])
    values["allowed_ips"] = tuple(values["allowed_ips"])
    return ApiKey(**values)
