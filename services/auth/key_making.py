"""Makes a key: its secret, its row, its audit entry and the e-mail about it, all in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from contract import key_format
from mesh import jobs
from mesh.database.connection import Connection
from mesh.ids import IdSource
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.model import ApiKey, CreatedApiKey, KeyMode, NewApiKey

ANNOUNCE_KEY: Final = "announce_api_key"
_MODES: Final = {KeyMode.LIVE: pb.KEY_MODE_LIVE, KeyMode.TEST: pb.KEY_MODE_TEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pepper:
    """The pepper that new digests are made with."""

    version: int
    value: bytes


class KeyMaker:
    """Makes keys.

    Args:
        pepper: For digests of new keys.
        audit: Is told of every key.
        random_bytes: A cryptographic source of randomness.
        ids: New ids.
    """

    def __init__(self, *, pepper: Pepper, audit: AuditLog, random_bytes: Callable[[int], bytes], ids: IdSource) -> None:
        self._pepper = pepper
        self._audit = audit
        self._random_bytes = random_bytes
        self._ids = ids

    async def make(
        self, tx: Connection, wanted: NewApiKey, creator_id: UUID, now: datetime, *, action: str = "api_key.create"
    ) -> CreatedApiKey:
        """Make a key; its secret is in the answer and not kept."""
        secret = key_format.mint(_MODES[wanted.mode], self._random_bytes(key_format.RANDOM_BYTES))
        api_key = ApiKey(
            api_key_id=self._ids.uuid7(),
            organization_id=wanted.organization_id,
            name=wanted.name,
            hint=key_format.hint(secret),
            mode=wanted.mode,
            scopes=wanted.scopes,
            allowed_ips=wanted.allowed_ips,
            external_subject=wanted.external_subject,
            creator_id=creator_id,
            create_time=now,
            expire_time=wanted.expire_time,
        )
        digest = key_format.digest(secret, self._pepper.value)
        await store.keys.insert_api_key(tx, api_key, digest=digest, pepper_version=self._pepper.version)
        await self._audit.note(
            tx,
            organization_id=api_key.organization_id,
            action=action,
            resource=f"api_key/{api_key.api_key_id}",
            after=audited(api_key),
        )
        await jobs.enqueue(
            tx,
            ANNOUNCE_KEY,
            {"key_name": api_key.name, "hint": api_key.hint, "create_time": api_key.create_time.isoformat()},
            job_id=self._ids.uuid7(),
            organization_id=api_key.organization_id,
        )
        return CreatedApiKey(api_key=api_key, secret=secret)


def audited(api_key: ApiKey) -> dict[str, Any]:
    """Return what the audit log says of a key."""
    return {
        "name": api_key.name,
        "hint": api_key.hint,
        "mode": api_key.mode.value,
        "scopes": list(api_key.scopes),
        "allowed_ips": list(api_key.allowed_ips),
        "external_subject": api_key.external_subject,
        "expire_time": api_key.expire_time.isoformat() if api_key.expire_time else None,
        "revoke_time": api_key.revoke_time.isoformat() if api_key.revoke_time else None,
        **({"replaced_by_id": str(api_key.replaced_by_id)} if api_key.replaced_by_id else {}),
    }
