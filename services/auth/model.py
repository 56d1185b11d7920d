"""What auth knows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID


class OrganizationState(Enum):
    """Whether an organization's requests are served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Role(Enum):
    """What a member may do in an organization."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class KeyMode(Enum):
    """Whether a key's requests are billed."""

    LIVE = "live"
    TEST = "test"


class KeyState(Enum):
    """Whether a key is accepted, expiry apart."""

    ACTIVE = "active"
    REVOKED = "revoked"
    ORGANIZATION_SUSPENDED = "organization_suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A tenant and paying customer. Its state is what holds, whoever suspended it."""

    organization_id: UUID
    name: str
    state: OrganizationState
    external_id: str
    contact_email: str
    billing_email: str
    currency_code: str
    time_zone: str
    metadata: Mapping[str, str]
    create_time: datetime
    plan_id: str = ""
    restricted: bool = False
    suspend_reason: str = ""
    delete_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What billing says of an organization."""

    plan_id: str
    restricted: bool
    suspended: bool
    state_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key without its secret."""

    api_key_id: UUID
    organization_id: UUID
    name: str
    hint: str
    mode: KeyMode
    scopes: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    external_subject: str
    creator_id: UUID
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedApiKey:
    """An API key and, this once, its secret."""

    api_key: ApiKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """What a caller wants an API key to be; checked by `rpc`."""

    organization_id: UUID
    name: str
    mode: KeyMode
    scopes: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    external_subject: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """What an edge has to know about a key."""

    digest: bytes
    api_key_id: UUID
    organization_id: UUID
    mode: KeyMode
    state: KeyState
    scopes: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    external_subject: str
    expire_time: datetime | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person who may sign in; without a hash they cannot."""

    person_id: UUID
    email: str
    password_hash: str | None = field(repr=False)
    credential_version: int = 1
    """Counts changes of password and address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A person's role in an organization."""

    organization_id: UUID
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMembership:
    """A person's role in an organization, as they are shown it."""

    organization_id: UUID
    organization_name: str
    organization_state: OrganizationState
    role: Role
    join_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a person is shown of themselves."""

    person_id: UUID
    email: str
    name: str
    second_factor: bool
    create_time: datetime
    memberships: tuple[NamedMembership, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRegistration:
    """What somebody wants their account and its organization to be; checked by `rpc`."""

    email: str
    password: str = field(repr=False)
    name: str
    organization_name: str
    currency_code: str
    time_zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registration whose address is to be proved."""

    registration_id: UUID
    email: str
    password_hash: str = field(repr=False)
    name: str
    organization_name: str
    currency_code: str
    time_zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What a registration became."""

    person_id: UUID
    organization_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed session token and what it says."""

    access_token: str = field(repr=False)
    expire_time: datetime
    organization_id: UUID
    person_id: UUID
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A member that is not a person."""

    service_account_id: UUID
    organization_id: UUID
    role: Role
    platform_role: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the audit log."""

    audit_entry_id: UUID
    organization_id: UUID
    actor: str
    action: str
    resource: str
    details: Mapping[str, Any]
    create_time: datetime
    actor_kind: str = ""
    address: str = ""
    request_id: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
