"""Rules of API keys: who may create, list and revoke them, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.rpc.access import Principal
from services.auth import key_powers, store
from services.auth.audit import AuditLog
from services.auth.errors import ApiKeyNotFound
from services.auth.key_limits import KeyLimits
from services.auth.key_making import KeyMaker, audited
from services.auth.model import ApiKey, CreatedApiKey, KeyFilter, NewApiKey
from services.auth.standing import require_growth


class ApiKeys:
    """Creates, lists and revokes API keys.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        limits: How many keys there may be.
        maker: Makes keys.
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

    async def create(self, wanted: NewApiKey, principal: Principal, asked: Mutation[CreatedApiKey, Answer]) -> Answer:
        """Create a key; its secret is in the answer and not kept.

        The audit entry and the e-mail to the organization's contact address belong to the same transaction.

        Raises:
            OrganizationSuspended: The organization is suspended.
            OrganizationRestricted: It has an overdue invoice.
            ApiKeysCreatedTooFast: The caller has created too many in the last minute.
            ApiKeyLimitReached: The organization has too many.
            ScopeNotAllowed: It would have a scope that the caller may not give.
            ApiKeyOutlivesCreator: A service account gives it more time than it has itself.
        """
        async with self._db.tenant(wanted.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._create, wanted, principal)

    async def _create(self, tx: Connection, wanted: NewApiKey, principal: Principal) -> CreatedApiKey:
        await require_growth(tx, wanted.organization_id)
        now, creator_id = self._clock.now(), UUID(principal.subject)
        await self._limits.check(tx, wanted.organization_id, creator_id, now)
        await key_powers.check_given(tx, principal, wanted.organization_id, wanted.scopes, wanted.expire_time)
        return await self._maker.make(tx, wanted, creator_id, now)

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
        key_powers.check_own(api_key, principal, access_pb2.PERMISSION_KEYS_REVOKE)
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
        self, organization_id: UUID, wanted: KeyFilter, *, before_id: UUID | None, limit: int
    ) -> list[ApiKey]:
        """Return those of an organization's keys that are wanted, newest first."""
        async with self._db.read(organization_id) as tx:
            return await store.keys.list_api_keys(tx, organization_id, wanted, before_id=before_id, limit=limit)

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
