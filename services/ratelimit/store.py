"""Runs ratelimit's statements: policies in PostgreSQL."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contract.windows import Window, WindowKind, WindowScope
from mesh.database import sql
from mesh.database.connection import Connection
from services.ratelimit.model import Policy

QUERIES: Final = sql.load(__package__)
POLICIES_CHANNEL: Final = "ratelimit_policies"


async def put_policy(tx: Connection, policy: Policy, now: datetime) -> bool:
    """Store a policy if it is newer than what is there, and tell every replica; False where it is not."""
    document = json.dumps(to_document(policy))
    return bool(await tx.fetch(QUERIES["put_policy"], policy.organization_id, policy.version, document, now))


async def lock_policy(tx: Connection, organization_id: UUID) -> Policy | None:
    """Return an organization's policy, which nobody else changes until the transaction ends."""
    row = await tx.fetchrow(QUERIES["lock_policy"], organization_id)
    return _policy(row) if row else None


async def get_policy(tx: Connection, organization_id: UUID) -> Policy | None:
    """Return an organization's policy."""
    row = await tx.fetchrow(QUERIES["get_policy"], organization_id)
    return _policy(row) if row else None


async def list_policies(tx: Connection) -> list[Policy]:
    """Return every policy."""
    return [_policy(row) for row in await tx.fetch(QUERIES["list_policies"])]


def _policy(row: Any) -> Policy:
    return from_document(row["organization_id"], row["version"], json.loads(row["windows"]))


def from_document(organization_id: UUID, version: int, windows: list[dict[str, Any]]) -> Policy:
    """Read a policy out of its row."""
    return Policy(
        organization_id=organization_id,
        version=version,
        windows=tuple(
            Window(
                name=window["name"],
                kind=WindowKind[window["kind"]],
                scope=WindowScope[window["scope"]],
                limit=window["limit"],
                period_seconds=window["period_seconds"],
                counts_billable_only=window["counts_billable_only"],
            )
            for window in windows
        ),
    )


def to_document(policy: Policy) -> list[dict[str, Any]]:
    """Write a policy's windows for its row; kinds and scopes by name, so that the row explains itself."""
    return [
        {
            "name": window.name,
            "kind": window.kind.name,
            "scope": window.scope.name,
            "limit": window.limit,
            "period_seconds": window.period_seconds,
            "counts_billable_only": window.counts_billable_only,
        }
        for window in policy.windows
    ]
