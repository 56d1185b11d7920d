"""Rules of API keys: who may create, list and revoke them, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from contract import key_format
from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.access import Principal, platform_role_has
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import ApiKeyNotFound, ApiKeyNotOwn
from services.auth.key_limits import KeyLimits
from services.auth.model import ApiKey, CreatedApiKey, KeyMode, NewApiKey

ANNOUNCE_KEY: Final = "announce_api_key"
_MODES: Final = {KeyMode.LIVE: pb.KEY_MODE_LIVE, KeyMode.TEST: pb.KEY_MODE_TEST}
_REVOKES_ANY: Final = frozenset({access_pb2.ROLE_OWNER, access_pb2.ROLE_ADMIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pepper:
    """The pepper that new digests are made with."""

    version: int
    value: bytes


class ApiKeys:
    """Creates, lists and revokes API keys.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        limits: How many keys there may be.
        pepper: For digests of new keys.
        audit: Is told of every change.
        random_bytes: A cryptographic source of randomness.
        clock: Time.
        ids: New ids.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        limits: KeyLimits,
        pepper: Pepper,
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._limits = limits
        self._pepper = pepper
        self._audit = audit
        self._random_bytes = random_bytes
        self._clock = clock
        self._ids = ids

    async def create(self, wanted: NewApiKey, principal: Principal, asked: Mutation[CreatedApiKey, Answer]) -> Answer:
        """Create a key; its secret is in the answer and not kept.

        The audit entry and the e-mail to the organization's contact address belong to the same transaction.

        Raises:
            ApiKeysCreatedTooFast: The caller has created too many in the last minute.
            ApiKeyLimitReached: The organization has too many.
        """
        async with self._db.tenant(wanted.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._create, wanted, principal)

    async def _create(self, tx: Connection, wanted: NewApiKey, principal: Principal) -> CreatedApiKey:
        now, creator_id = self._clock.now(), UUID(principal.subject)
        await self._limits.check(tx, wanted.organization_id, creator_id, now)
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
            action="api_key.create",
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

    async def revoke(
        self, organization_id: UUID, api_key_id: UUID, principal: Principal, asked: Mutation[ApiKey, Answer]
    ) -> Answer:
        """Revoke a key; one that is revoked already is returned as it is.

        Raises:
            ApiKeyNotFound: The organization has no such key.
            ApiKeyNotOwn: A member asks for a key that somebody else created.
        """
        async with self._db.tenant(organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._revoke, organization_id, api_key_id, principal)

    async def _revoke(self, tx: Connection, organization_id: UUID, api_key_id: UUID, principal: Principal) -> ApiKey:
        api_key = await store.keys.lock_api_key(tx, organization_id, api_key_id)
        if api_key is None:
            raise ApiKeyNotFound
        if str(api_key.creator_id) != principal.subject and not _revokes_any(principal, organization_id):
            raise ApiKeyNotOwn
        if api_key.revoke_time is not None:
            return api_key
        await store.keys.revoke_api_key(tx, organization_id, api_key_id, self._clock.now())
        revoked = await store.keys.lock_api_key(tx, organization_id, api_key_id)
        assert revoked is not None, "its row is locked"  # noqa: S101
        await self._audit.note(
            tx,
            organization_id=organization_id,
            action="api_key.revoke",
            resource=f"api_key/{api_key_id}",
            before=audited(api_key),
            after=audited(revoked),
        )
        return revoked

    async def list(
        self, organization_id: UUID, *, creator_id: UUID | None, before_id: UUID | None, limit: int
    ) -> list[ApiKey]:
        """Return an organization's keys, or those that one creator made, newest first."""
        async with self._db.read(organization_id) as tx:
            return await store.keys.list_api_keys(
                tx, organization_id, creator_id=creator_id, before_id=before_id, limit=limit
            )

    async def get(self, organization_id: UUID, api_key_id: UUID) -> ApiKey:
        """Return one key.

        Raises:
            ApiKeyNotFound: The organization has no such key.
        """
        found = await self.get_many(organization_id, (api_key_id,))
        if not found:
            raise ApiKeyNotFound
        return found[0]

    async def get_many(self, organization_id: UUID, api_key_ids: Sequence[UUID]) -> Sequence[ApiKey]:
        """Return the keys that exist, in the order asked for, each once."""
        async with self._db.read(organization_id) as tx:
            found = await store.keys.find_api_keys(tx, organization_id, api_key_ids)
        return [found[one] for one in dict.fromkeys(api_key_ids) if one in found]


def _revokes_any(principal: Principal, organization_id: UUID) -> bool:
    """Tell whether somebody may revoke what others created: as owner or admin, or as the operator."""
    if platform_role_has(principal.platform_roles, access_pb2.PERMISSION_KEYS_REVOKE):
        return True
    return principal.organization_id == organization_id and principal.role in _REVOKES_ANY


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
    }
