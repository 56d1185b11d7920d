"""Rules of service accounts: who may create, change, rotate and revoke them, and whose token is whose.

Nobody gives more than they have. A caller manages service accounts of at most their own role, and gives at most that
role; the operator's administrators give any. A service account gives at most the time that it has itself, so that a
token that was stolen cannot outlive its own end by making another one, or by moving that end.

A service account with a role of the operator belongs to the operator's own organization. Only its administrators create
and change such accounts, under the system role: the tenant role does not even see them.

One that is revoked or has expired stays so; whoever needs it again creates another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from contract import key_format
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc import opaque_tokens
from mesh.rpc.access import Principal, PrincipalKind, platform_role_has
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import (
    OperatorsServiceAccount,
    PlatformRoleElsewhere,
    RoleAboveOwn,
    ServiceAccountEnded,
    ServiceAccountLimitReached,
    ServiceAccountNotFound,
    ServiceAccountOutlivesCreator,
)
from services.auth.model import (
    CreatedServiceAccount,
    NewServiceAccount,
    Role,
    ServiceAccount,
    ServiceAccountChange,
)
from services.auth.standing import require_growth

EXPIRY_DEFAULT: Final = timedelta(days=90)
LAST_USE_PRECISION: Final = timedelta(minutes=15)
_RANKS: Final = {
    access_pb2.ROLE_MEMBER: 1,
    access_pb2.ROLE_ADMIN: 2,
    access_pb2.ROLE_OWNER: 3,
}
_ROLES: Final = {
    Role.MEMBER: access_pb2.ROLE_MEMBER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.OWNER: access_pb2.ROLE_OWNER,
}


class ServiceAccounts:
    """Creates, changes, rotates, revokes, lists and resolves service accounts.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        per_organization_max: How many may work at once in one organization.
        peppers: Peppers of digests by version; new digests are made with the highest.
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
        per_organization_max: int,
        peppers: Mapping[int, bytes],
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._per_organization_max = per_organization_max
        self._peppers = dict(peppers)
        self._audit = audit
        self._random_bytes = random_bytes
        self._clock = clock
        self._ids = ids

    async def resolve(self, token: str) -> ServiceAccount | None:
        """Return who holds a token, or None where nobody does or it is no longer valid.

        The use is noted, at most once per 15 minutes and account.
        """
        if not opaque_tokens.is_well_formed(token, SERVICE_ACCOUNT_PREFIX):
            return None
        now = self._clock.now()
        digests = [key_format.digest(token, pepper) for pepper in self._peppers.values()]
        async with self._db.system() as tx:
            account = await store.service_accounts.find_by_digest(tx, digests, now)
            if account is not None and _is_stale(account, now):
                await store.service_accounts.touch(tx, account, now)
        return account

    async def create(
        self, wanted: NewServiceAccount, principal: Principal, asked: Mutation[CreatedServiceAccount, Answer]
    ) -> Answer:
        """Create a service account; its token is in the answer and not kept.

        Raises:
            OrganizationNotFound, OrganizationSuspended, OrganizationRestricted: Nothing may be added to it.
            RoleAboveOwn: The caller has less than the role.
            OperatorsServiceAccount, PlatformRoleElsewhere: The caller may not give the platform role, or not there.
            ServiceAccountOutlivesCreator: The caller is a service account that ends before.
            ServiceAccountLimitReached: The organization has too many.
        """
        async with self._writing(principal, wanted.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._create, wanted, principal)

    async def _create(self, tx: Connection, wanted: NewServiceAccount, principal: Principal) -> CreatedServiceAccount:
        now = self._clock.now()
        _require_role(principal, wanted.role)
        if wanted.platform_role is not None:
            _require_operator(principal)
            if wanted.organization_id != principal.organization_id:
                raise PlatformRoleElsewhere
        await require_growth(tx, wanted.organization_id)
        expire_time = await self._expire_time(tx, principal, wanted.expire_time, now)
        await store.service_accounts.lock(tx, wanted.organization_id)
        if await store.service_accounts.has(tx, wanted.organization_id, count=self._per_organization_max, now=now):
            raise ServiceAccountLimitReached(metadata={"service_accounts_max": str(self._per_organization_max)})
        token = self._mint()
        account = ServiceAccount(
            service_account_id=self._ids.uuid7(),
            organization_id=wanted.organization_id,
            name=wanted.name,
            role=wanted.role,
            platform_role=wanted.platform_role,
            hint=opaque_tokens.hint(token, SERVICE_ACCOUNT_PREFIX),
            creator_id=UUID(principal.subject),
            create_time=now,
            expire_time=expire_time,
        )
        await store.service_accounts.insert(tx, account, digest=self._digest(token), pepper_version=self._newest)
        await self._note(tx, "create", account, after=audited(account))
        return CreatedServiceAccount(service_account=account, token=token)

    async def get(self, organization_id: UUID, service_account_id: UUID, principal: Principal) -> ServiceAccount:
        """Return one service account.

        Raises:
            ServiceAccountNotFound: The organization has no such service account.
        """
        async with self._reading(principal, organization_id) as tx:
            account = await store.service_accounts.find(tx, organization_id, service_account_id)
            if account is None:
                raise ServiceAccountNotFound
            (found,) = await self._with_platform_roles(tx, principal, organization_id, [account])
            return found

    async def list_page(
        self, organization_id: UUID, principal: Principal, *, before_id: UUID | None, limit: int
    ) -> list[ServiceAccount]:
        """Return an organization's service accounts, newest first."""
        async with self._reading(principal, organization_id) as tx:
            found = await store.service_accounts.list_page(tx, organization_id, before_id=before_id, limit=limit)
            return await self._with_platform_roles(tx, principal, organization_id, found)

    async def update(
        self,
        organization_id: UUID,
        service_account_id: UUID,
        change: ServiceAccountChange,
        principal: Principal,
        asked: Mutation[ServiceAccount, Answer],
    ) -> Answer:
        """Change name, role or expiry; in force everywhere within a second.

        Raises:
            ServiceAccountNotFound: The organization has no such service account.
            ServiceAccountEnded: It is revoked or has expired.
            RoleAboveOwn, OperatorsServiceAccount: The caller has less than the account has, or is to have.
            ServiceAccountOutlivesCreator: The caller is a service account that ends before.
        """
        async with self._writing(principal, organization_id) as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._update, organization_id, service_account_id, change, principal
            )

    async def _update(
        self,
        tx: Connection,
        organization_id: UUID,
        service_account_id: UUID,
        change: ServiceAccountChange,
        principal: Principal,
    ) -> ServiceAccount:
        now = self._clock.now()
        before = await self._lock(tx, organization_id, service_account_id, principal)
        _require_working(before, now)
        if change.role is not None:
            _require_role(principal, change.role)
        expire_time = before.expire_time
        if change.expire_time is not None:
            expire_time = await self._expire_time(tx, principal, change.expire_time, now)
        after = replace(
            before,
            name=before.name if change.name is None else change.name,
            role=before.role if change.role is None else change.role,
            expire_time=expire_time,
        )
        if after == before:
            return after
        await store.service_accounts.update(tx, after)
        await self._note(tx, "update", after, before=audited(before), after=audited(after))
        return after

    async def rotate(
        self,
        organization_id: UUID,
        service_account_id: UUID,
        overlap: timedelta,
        principal: Principal,
        asked: Mutation[CreatedServiceAccount, Answer],
    ) -> Answer:
        """Replace a token; the old one goes on working for a while, or ends now.

        Raises:
            ServiceAccountNotFound: The organization has no such service account.
            ServiceAccountEnded: It is revoked or has expired.
            RoleAboveOwn, OperatorsServiceAccount: The caller has less than the account has.
        """
        async with self._writing(principal, organization_id) as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._rotate, organization_id, service_account_id, overlap, principal
            )

    async def _rotate(
        self, tx: Connection, organization_id: UUID, service_account_id: UUID, overlap: timedelta, principal: Principal
    ) -> CreatedServiceAccount:
        now = self._clock.now()
        before = await self._lock(tx, organization_id, service_account_id, principal)
        _require_working(before, now)
        token = self._mint()
        after = replace(before, hint=opaque_tokens.hint(token, SERVICE_ACCOUNT_PREFIX))
        previous_expire_time = now + overlap if overlap else None
        await store.service_accounts.replace_token(
            tx,
            after,
            digest=self._digest(token),
            pepper_version=self._newest,
            previous_expire_time=previous_expire_time,
        )
        details = {"previous_expire_time": previous_expire_time.isoformat() if previous_expire_time else None}
        await self._note(tx, "rotate", after, before=audited(before), after=audited(after), details=details)
        return CreatedServiceAccount(service_account=after, token=token)

    async def revoke(
        self,
        organization_id: UUID,
        service_account_id: UUID,
        principal: Principal,
        asked: Mutation[ServiceAccount, Answer],
    ) -> Answer:
        """Revoke a service account, for good; one that is revoked already is returned as it is.

        Raises:
            ServiceAccountNotFound: The organization has no such service account.
            RoleAboveOwn, OperatorsServiceAccount: The caller has less than the account has.
        """
        async with self._writing(principal, organization_id) as tx:
            return await self._idempotency.idempotent(
                tx, asked, self._revoke, organization_id, service_account_id, principal
            )

    async def _revoke(
        self, tx: Connection, organization_id: UUID, service_account_id: UUID, principal: Principal
    ) -> ServiceAccount:
        before = await self._lock(tx, organization_id, service_account_id, principal)
        if before.revoke_time is not None:
            return before
        after = replace(before, revoke_time=self._clock.now())
        assert after.revoke_time is not None  # noqa: S101 - set in the line above
        await store.service_accounts.revoke(tx, after, after.revoke_time)
        await self._note(tx, "revoke", after, before=audited(before), after=audited(after))
        return after

    def _writing(self, principal: Principal, organization_id: UUID) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction: as the tenant, or as the system for the operator's people, who name any organization."""
        return self._db.system() if principal.platform_roles else self._db.tenant(organization_id)

    def _reading(self, principal: Principal, organization_id: UUID) -> AbstractAsyncContextManager[Connection]:
        return self._db.system() if principal.platform_roles else self._db.read(organization_id)

    async def _with_platform_roles(
        self, tx: Connection, principal: Principal, organization_id: UUID, accounts: list[ServiceAccount]
    ) -> list[ServiceAccount]:
        if not principal.platform_roles:
            return accounts
        return await store.service_accounts.with_platform_roles(tx, organization_id, accounts)

    async def _lock(
        self, tx: Connection, organization_id: UUID, service_account_id: UUID, principal: Principal
    ) -> ServiceAccount:
        """Return a service account that the caller may manage, and keep others from changing it meanwhile."""
        account = await store.service_accounts.find_for_update(tx, organization_id, service_account_id)
        if account is None:
            raise ServiceAccountNotFound
        (account,) = await self._with_platform_roles(tx, principal, organization_id, [account])
        if account.platform_role is not None:
            _require_operator(principal)
        _require_role(principal, account.role)
        return account

    async def _expire_time(
        self, tx: Connection, principal: Principal, wanted: datetime | None, now: datetime
    ) -> datetime:
        """Return when an account ends that this caller gives time to.

        Raises:
            ServiceAccountOutlivesCreator: The caller is a service account that ends before.
        """
        if principal.kind is not PrincipalKind.SERVICE_ACCOUNT or principal.organization_id is None:
            return wanted or now + EXPIRY_DEFAULT
        caller = await store.service_accounts.find(tx, principal.organization_id, UUID(principal.subject))
        # Gone within the last second, while its token was still remembered: it has no time to give.
        latest = caller.expire_time if caller is not None else now
        if wanted is not None and wanted > latest:
            raise ServiceAccountOutlivesCreator(metadata={"expire_time_max": latest.isoformat()})
        return wanted or min(now + EXPIRY_DEFAULT, latest)

    def _mint(self) -> str:
        return opaque_tokens.mint(SERVICE_ACCOUNT_PREFIX, self._random_bytes(opaque_tokens.RANDOM_BYTES))

    @property
    def _newest(self) -> int:
        return max(self._peppers)

    def _digest(self, token: str) -> bytes:
        return key_format.digest(token, self._peppers[self._newest])

    async def _note(
        self,
        tx: Connection,
        verb: str,
        account: ServiceAccount,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        await self._audit.note(
            tx,
            organization_id=account.organization_id,
            action=f"service_account.{verb}",
            resource=f"service_account/{account.service_account_id}",
            before=before,
            after=after,
            details=details,
        )


def audited(account: ServiceAccount) -> dict[str, Any]:
    """Return what the audit log says of a service account."""
    return {
        "name": account.name,
        "role": account.role.value,
        "platform_role": account.platform_role,
        "hint": account.hint,
        "expire_time": account.expire_time.isoformat(),
        "revoke_time": account.revoke_time.isoformat() if account.revoke_time else None,
    }


def _is_stale(account: ServiceAccount, now: datetime) -> bool:
    return account.last_use_time is None or now - account.last_use_time > LAST_USE_PRECISION


def _is_operator(principal: Principal) -> bool:
    return platform_role_has(principal.platform_roles, access_pb2.PERMISSION_SERVICE_ACCOUNTS_MANAGE)


def _require_operator(principal: Principal) -> None:
    if not _is_operator(principal):
        raise OperatorsServiceAccount


def _require_role(principal: Principal, role: Role) -> None:
    if not _is_operator(principal) and _RANKS[_ROLES[role]] > _RANKS.get(principal.role, 0):
        raise RoleAboveOwn(metadata={"role": role.value})


def _require_working(account: ServiceAccount, now: datetime) -> None:
    if account.revoke_time is not None or account.expire_time <= now:
        raise ServiceAccountEnded
