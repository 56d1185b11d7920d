"""Changing a key, and replacing it by another one that may do the same."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.rpc.access import Principal
from services.auth import key_powers, store
from services.auth.audit import AuditLog
from services.auth.errors import ApiKeyEnded, ApiKeyNotFound, ApiKeyReplaced, OrganizationRestricted
from services.auth.key_limits import KeyLimits
from services.auth.key_making import KeyMaker, audited
from services.auth.model import ApiKey, ApiKeyChange, CreatedApiKey, NewApiKey
from services.auth.standing import require_growth

CHANGEABLE: Final = frozenset({"name", "scopes", "allowed_ips", "external_subject", "expire_time"})


class KeyEdits:
    """Changes and replaces API keys.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        limits: How many keys there may be.
        maker: Makes the new key.
        audit: Is told of every change.
        clock: Time.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        limits: KeyLimits,
        maker: KeyMaker,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._limits = limits
        self._maker = maker
        self._audit = audit
        self._clock = clock

    async def update(self, change: ApiKeyChange, principal: Principal, asked: Mutation[ApiKey, Answer]) -> Answer:
        """Change a key; edges follow within a second.

        Raises:
            ApiKeyNotFound: The organization has no such key.
            ApiKeyNotOwn: A member asks for a key that somebody else created.
            ApiKeyEnded: It is revoked or has expired.
            ApiKeyReplaced: It was replaced and would live longer.
            ScopeNotAllowed: It would get a scope that the caller may not give.
            ApiKeyOutlivesCreator: A service account would give it more time than it has itself.
        """
        async with self._db.tenant(change.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._update, change, principal)

    async def _update(self, tx: Connection, change: ApiKeyChange, principal: Principal) -> ApiKey:
        before = await self._lock(tx, change.organization_id, change.api_key_id)
        key_powers.check_own(before, principal, access_pb2.PERMISSION_KEYS_UPDATE)
        if before.has_ended(self._clock.now()):
            raise ApiKeyEnded
        values: dict[str, Any] = {field: getattr(change, field) for field in change.fields}
        after = dataclasses.replace(before, **values)
        if after == before:
            return before
        if before.replaced_by_id is not None and _lives_longer(after, before):
            raise ApiKeyReplaced(metadata={"replaced_by_id": str(before.replaced_by_id)})
        # A key that lives longer gives what it carries for longer.
        given = after.scopes if _lives_longer(after, before) else set(after.scopes).difference(before.scopes)
        await key_powers.check_given(tx, principal, change.organization_id, given, after.expire_time)
        await store.keys.update_api_key(tx, after)
        await self._note(tx, "api_key.update", before, after)
        return after

    async def rotate(
        self,
        organization_id: UUID,
        api_key_id: UUID,
        overlap: timedelta,
        principal: Principal,
        asked: Mutation[CreatedApiKey, Answer],
    ) -> Answer:
        """Create a key that may do what another one may, and end that one now or after an overlap.

        The new key is the caller's, because it is the caller who sees its secret. Without an overlap it takes the old
        one's place, so a full organization can rotate too.

        Raises:
            ApiKeyNotFound: The organization has no such key.
            ApiKeyNotOwn: A member asks for a key that somebody else created.
            ApiKeyEnded: It is revoked or has expired.
            ApiKeyReplaced: It was replaced already.
            OrganizationSuspended: The organization is suspended.
            ScopeNotAllowed: It has a scope that the caller may not give.
            ApiKeyOutlivesCreator: A service account would give the new key more time than it has itself.
            ApiKeysCreatedTooFast: The caller has created too many in the last minute.
            ApiKeyLimitReached: There is an overlap, and the organization has too many keys.
        """
        async with self._db.tenant(organization_id) as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._rotate, organization_id, api_key_id, overlap, principal
            )

    async def _rotate(
        self, tx: Connection, organization_id: UUID, api_key_id: UUID, overlap: timedelta, principal: Principal
    ) -> CreatedApiKey:
        now, creator_id = self._clock.now(), UUID(principal.subject)
        # An overdue invoice must not keep a leaked key alive: whoever replaces a key adds none.
        with contextlib.suppress(OrganizationRestricted):
            await require_growth(tx, organization_id)
        # The lock of the limits comes before a key's everywhere, so that nobody waits crosswise.
        await self._limits.check_pace(tx, organization_id, creator_id, now)
        before = await self._lock(tx, organization_id, api_key_id)
        key_powers.check_own(before, principal, access_pb2.PERMISSION_KEYS_UPDATE)
        if before.replaced_by_id is not None:
            raise ApiKeyReplaced(metadata={"replaced_by_id": str(before.replaced_by_id)})
        if before.has_ended(now):
            raise ApiKeyEnded
        if overlap:
            await self._limits.check_count(tx, organization_id, now)
        await key_powers.check_given(tx, principal, organization_id, before.scopes, before.expire_time)
        made = await self._maker.make(tx, _same(before), creator_id, now, action="api_key.create")
        after = dataclasses.replace(before, replaced_by_id=made.api_key.api_key_id, **_end(before, now, overlap))
        await store.keys.replace_api_key(tx, after)
        await self._note(tx, "api_key.rotate", before, after)
        return made

    async def _lock(self, tx: Connection, organization_id: UUID, api_key_id: UUID) -> ApiKey:
        api_key = await store.keys.lock_api_key(tx, organization_id, api_key_id)
        if api_key is None:
            raise ApiKeyNotFound
        return api_key

    async def _note(self, tx: Connection, action: str, before: ApiKey, after: ApiKey) -> None:
        await self._audit.note(
            tx,
            organization_id=after.organization_id,
            action=action,
            resource=f"api_key/{after.api_key_id}",
            before=audited(before),
            after=audited(after),
        )


def _lives_longer(after: ApiKey, before: ApiKey) -> bool:
    if before.expire_time is None:
        return False
    return after.expire_time is None or after.expire_time > before.expire_time


def _same(api_key: ApiKey) -> NewApiKey:
    """Return what a key has to be that may do what another one may."""
    return NewApiKey(
        organization_id=api_key.organization_id,
        name=api_key.name,
        mode=api_key.mode,
        scopes=api_key.scopes,
        allowed_ips=api_key.allowed_ips,
        external_subject=api_key.external_subject,
        expire_time=api_key.expire_time,
    )


def _end(api_key: ApiKey, now: Any, overlap: timedelta) -> dict[str, Any]:
    """Return how a replaced key ends: at once, or at the end of the overlap if it does not expire before."""
    if not overlap:
        return {"revoke_time": now}
    end_time = now + overlap
    return {"expire_time": min(api_key.expire_time or end_time, end_time)}
