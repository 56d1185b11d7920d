"""API keys and their grants."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.auth.errors import OrganizationNotFound
from services.auth.model import ApiKey, KeyFilter, KeyGrant, KeyMode, KeyState, OrganizationState

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


async def touch_keys(tx: Connection, uses: Mapping[tuple[UUID, UUID], datetime], step: timedelta) -> None:
    """Note when keys, named by (organization, key), were used; what is stored already and a step behind is raised."""
    organization_ids, api_key_ids = [key[0] for key in uses], [key[1] for key in uses]
    await tx.execute(QUERIES["touch_keys"], organization_ids, api_key_ids, list(uses.values()), step)


async def list_prefixes(tx: Connection, *, prefixes_max: int) -> list[str]:
    """Return what imported keys begin with, in order."""
    return [row["key_prefix"] for row in await tx.fetch(QUERIES["select_prefixes"], prefixes_max)]


async def list_prefixes_of_organization(tx: Connection, organization_id: UUID) -> set[str]:
    """Return what an organization's imported keys begin with."""
    rows = await tx.fetch(QUERIES["select_prefixes_of_organization"], organization_id)
    return {row["key_prefix"] for row in rows}


async def insert_api_keys(
    tx: Connection, api_keys: Sequence[ApiKey], digests: Sequence[bytes], *, pepper_version: int
) -> set[UUID]:
    """Store imported keys of one organization and creator, and return which; a digest that is there already is not."""
    first = api_keys[0]
    rows = [
        {
            "api_key_id": str(api_key.api_key_id),
            "digest": digest.hex(),
            "name": api_key.name,
            "hint": api_key.hint,
            "mode": api_key.mode.value,
            "scopes": api_key.scopes,
            "allowed_ips": api_key.allowed_ips,
            "external_subject": api_key.external_subject,
            "expire_time": api_key.expire_time.isoformat() if api_key.expire_time else None,
            "key_prefix": api_key.key_prefix,
        }
        for api_key, digest in zip(api_keys, digests, strict=True)
    ]
    stored = await tx.fetch(
        QUERIES["insert_api_keys"],
        first.organization_id,
        pepper_version,
        first.creator_id,
        first.create_time,
        json.dumps(rows),
    )
    return {row["api_key_id"] for row in stored}


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


async def update_api_key(tx: Connection, api_key: ApiKey) -> None:
    """Store what can be changed of a key."""
    await tx.execute(
        QUERIES["update_api_key"],
        api_key.organization_id,
        api_key.api_key_id,
        api_key.name,
        list(api_key.scopes),
        list(api_key.allowed_ips),
        api_key.external_subject,
        api_key.expire_time,
    )


async def replace_api_key(tx: Connection, api_key: ApiKey) -> None:
    """Note which key replaces another one, and when that one ends."""
    await tx.execute(
        QUERIES["replace_api_key"],
        api_key.organization_id,
        api_key.api_key_id,
        api_key.replaced_by_id,
        api_key.expire_time,
        api_key.revoke_time,
    )


async def find_end_of_service_account(tx: Connection, service_account_id: UUID) -> datetime | None:
    """Return when a service account of the transaction's organization expires, if it is one of it."""
    found: datetime | None = await tx.fetchval(QUERIES["select_end_of_service_account"], service_account_id)
    return found


async def list_api_keys(
    tx: Connection, organization_id: UUID, wanted: KeyFilter, *, before_id: UUID | None, limit: int
) -> list[ApiKey]:
    """Return those of an organization's keys that are wanted, newest first."""
    mode = wanted.mode.value if wanted.mode else None
    name = "select_api_keys"
    values: list[Any] = [before_id]
    if wanted.usable_at and wanted.creator_id:
        name, values = "select_usable_api_keys_of_creator", [wanted.creator_id, before_id, mode, wanted.usable_at]
    elif wanted.usable_at:
        name, values = "select_usable_api_keys", [before_id, mode, wanted.usable_at]
    elif wanted.creator_id:
        name, values = "select_api_keys_of_creator", [wanted.creator_id, before_id, mode]
    elif mode:
        name, values = "select_api_keys_of_mode", [mode, before_id]
    return [_api_key(row) for row in await tx.fetch(QUERIES[name], organization_id, *values, limit)]


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
            plan_id=row["plan_id"],
            restricted=row["restricted"],
            key_prefix=row["key_prefix"],
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
