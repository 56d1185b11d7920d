"""Service accounts on the wire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from google.protobuf import duration_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.clock import Clock
from mesh.database.idempotency import mutation
from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.model import (
    CreatedServiceAccount,
    NewServiceAccount,
    Role,
    ServiceAccount,
    ServiceAccountChange,
)
from services.auth.rpc.fields import check_text, read_mask, read_time, to_timestamp
from services.auth.service_accounts import ServiceAccounts

NAME_LENGTH_MAX: Final = 100
EXPIRY_MAX: Final = timedelta(days=2 * 366)
OVERLAP_MAX: Final = timedelta(days=7)
CHANGEABLE: Final = ("name", "role", "expire_time")
_PLATFORM_PREFIX: Final = "PLATFORM_ROLE_"
_ROLES: Final = {
    Role.OWNER: access_pb2.ROLE_OWNER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
}
_ROLE_OF: Final = {number: role for role, number in _ROLES.items()}


class ServiceAccountRpcs:
    """Creating, getting, listing, changing, rotating, revoking and resolving service accounts.

    Args:
        service_accounts: The rules.
        page_tokens: Pages.
        clock: For checking that an expiry lies ahead.
    """

    def __init__(self, service_accounts: ServiceAccounts, page_tokens: PageTokens, clock: Clock) -> None:
        self._machines = service_accounts
        self._machine_pages = page_tokens
        self._machine_clock = clock

    async def ResolveServiceAccount(
        self, request: pb.ResolveServiceAccountRequest, context: Any
    ) -> pb.ResolveServiceAccountResponse:
        """Resolve a service account's token."""
        return to_resolved(await self._machines.resolve(request.token))

    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, context: Any
    ) -> pb.CreateServiceAccountResponse:
        """Create a service account."""
        wanted = from_new(request, self._machine_clock.now())
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=wanted.organization_id,
            principal=principal.subject,
            answer_type=pb.CreateServiceAccountResponse,
            to_answer=to_created,
        )
        return await self._machines.create(wanted, principal, asked)

    async def GetServiceAccount(self, request: pb.GetServiceAccountRequest, context: Any) -> pb.ServiceAccount:
        """Get a service account."""
        return to_service_account(await self._machines.get(*from_name(request), current_principal()))

    async def ListServiceAccounts(
        self, request: pb.ListServiceAccountsRequest, context: Any
    ) -> pb.ListServiceAccountsResponse:
        """List an organization's service accounts."""
        organization_id = UUID(request.organization_id)
        listing = f"service_accounts/{organization_id}"
        wanted = self._machine_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._machines.list_page(
            organization_id, current_principal(), before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        ids = [account.service_account_id for account in found]
        page = self._machine_pages.page(found, ids, request=wanted, listing=listing)
        return pb.ListServiceAccountsResponse(
            service_accounts=[to_service_account(account) for account in page.rows],
            next_page_token=page.next_page_token,
        )

    async def UpdateServiceAccount(self, request: pb.UpdateServiceAccountRequest, context: Any) -> pb.ServiceAccount:
        """Change a service account."""
        organization_id, service_account_id, change = from_change(request, self._machine_clock.now())
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.ServiceAccount,
            to_answer=to_service_account,
        )
        return await self._machines.update(organization_id, service_account_id, change, principal, asked)

    async def RotateServiceAccount(
        self, request: pb.RotateServiceAccountRequest, context: Any
    ) -> pb.CreateServiceAccountResponse:
        """Replace a service account's token."""
        organization_id, service_account_id, overlap = from_rotation(request)
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.CreateServiceAccountResponse,
            to_answer=to_created,
        )
        return await self._machines.rotate(organization_id, service_account_id, overlap, principal, asked)

    async def RevokeServiceAccount(self, request: pb.RevokeServiceAccountRequest, context: Any) -> pb.ServiceAccount:
        """Revoke a service account."""
        organization_id, service_account_id = from_name(request)
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.ServiceAccount,
            to_answer=to_service_account,
        )
        return await self._machines.revoke(organization_id, service_account_id, principal, asked)


def from_new(request: pb.CreateServiceAccountRequest, now: datetime) -> NewServiceAccount:
    """Check what a new service account is to be."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    role = _read_role(violations, "role", request.role)
    expire_time = None
    if request.HasField("expire_time"):
        expire_time = _read_expiry(violations, "expire_time", request.expire_time, now)
    violations.raise_if_any()
    return NewServiceAccount(
        organization_id=organization_id,
        name=request.name,
        role=role,
        platform_role=_from_platform_role(request.platform_role),
        expire_time=expire_time,
    )


def from_name(request: pb.GetServiceAccountRequest | pb.RevokeServiceAccountRequest) -> tuple[UUID, UUID]:
    """Check a request that names a service account and return organization and service account."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    service_account_id = violations.read_uuid("service_account_id", request.service_account_id)
    violations.raise_if_any()
    return organization_id, service_account_id


def from_change(request: pb.UpdateServiceAccountRequest, now: datetime) -> tuple[UUID, UUID, ServiceAccountChange]:
    """Check what is to be different and return organization, service account and change."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    values = request.service_account
    service_account_id = violations.read_uuid("service_account.service_account_id", values.service_account_id)
    paths = read_mask(violations, request.update_mask, CHANGEABLE)
    name, role, expire_time = None, None, None
    if "name" in paths:
        name = values.name
        check_text(violations, "service_account.name", name, length_min=1, length_max=NAME_LENGTH_MAX)
    if "role" in paths:
        role = _read_role(violations, "service_account.role", values.role)
    if "expire_time" in paths:
        expire_time = _read_expiry(violations, "service_account.expire_time", values.expire_time, now)
    violations.raise_if_any()
    return organization_id, service_account_id, ServiceAccountChange(name=name, role=role, expire_time=expire_time)


def from_rotation(request: pb.RotateServiceAccountRequest) -> tuple[UUID, UUID, timedelta]:
    """Check a rotation and return organization, service account and how long the old token goes on working."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    service_account_id = violations.read_uuid("service_account_id", request.service_account_id)
    overlap = _read_overlap(violations, request.overlap)
    violations.raise_if_any()
    return organization_id, service_account_id, overlap


def to_service_account(account: ServiceAccount) -> pb.ServiceAccount:
    """Convert a service account."""
    return pb.ServiceAccount(
        service_account_id=str(account.service_account_id),
        organization_id=str(account.organization_id),
        name=account.name,
        role=_ROLES[account.role],
        hint=account.hint,
        creator_id=str(account.creator_id) if account.creator_id else "",
        create_time=to_timestamp(account.create_time),
        expire_time=to_timestamp(account.expire_time),
        revoke_time=to_timestamp(account.revoke_time) if account.revoke_time else None,
        last_use_time=to_timestamp(account.last_use_time) if account.last_use_time else None,
        platform_role=_to_platform_role(account.platform_role),
    )


def to_created(created: CreatedServiceAccount) -> pb.CreateServiceAccountResponse:
    """Convert a new service account; the only place where its token leaves."""
    return pb.CreateServiceAccountResponse(
        service_account=to_service_account(created.service_account), token=created.token
    )


def to_resolved(account: ServiceAccount | None) -> pb.ResolveServiceAccountResponse:
    """Convert who holds a token, or that nobody does."""
    if account is None:
        return pb.ResolveServiceAccountResponse(valid=False)
    return pb.ResolveServiceAccountResponse(
        valid=True,
        service_account_id=str(account.service_account_id),
        organization_id=str(account.organization_id),
        role=_ROLES[account.role],
        platform_roles=[_to_platform_role(account.platform_role)] if account.platform_role else [],
    )


def _read_role(violations: Violations, field: str, number: access_pb2.Role.ValueType) -> Role:
    violations.check(number in _ROLE_OF, field, "must be owner, admin or member")
    return _ROLE_OF.get(number, Role.MEMBER)


def _read_expiry(
    violations: Violations, field: str, timestamp: timestamp_pb2.Timestamp, now: datetime
) -> datetime | None:
    expire_time = read_time(violations, field, timestamp)
    if expire_time is not None:
        violations.check(now < expire_time <= now + EXPIRY_MAX, field, "must be in the future, two years at most")
    return expire_time


def _read_overlap(violations: Violations, duration: duration_pb2.Duration) -> timedelta:
    overlap = duration.ToTimedelta()
    violations.check(timedelta() <= overlap <= OVERLAP_MAX, "overlap", f"must be 0 to {OVERLAP_MAX.days} days")
    return overlap


def _from_platform_role(number: access_pb2.PlatformRole.ValueType) -> str | None:
    """Return a platform role as the tables name it, for example `platform_admin`."""
    if number == access_pb2.PLATFORM_ROLE_UNSPECIFIED:
        return None
    return f"platform_{access_pb2.PlatformRole.Name(number).removeprefix(_PLATFORM_PREFIX).lower()}"


def _to_platform_role(name: str | None) -> access_pb2.PlatformRole.ValueType:
    if name is None:
        return access_pb2.PLATFORM_ROLE_UNSPECIFIED
    return access_pb2.PlatformRole.Value(_PLATFORM_PREFIX + name.removeprefix("platform_").upper())
