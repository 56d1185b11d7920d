"""What auth knows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from mesh.secretbox import Sealed


class OrganizationState(Enum):
    """Whether an organization's requests are served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Role(Enum):
    """What a member may do in an organization; each includes what those below it may do."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"

    def includes(self, other: Role) -> bool:
        """Tell whether this role is at least the other one."""
        return _RANKS[self] >= _RANKS[other]


_RANKS: Final = {Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}


class InvitationState(Enum):
    """How far an invitation has come."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


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
class NewOrganization:
    """What an organization is to be; checked by `rpc`. An empty `contact_email` stands for a default."""

    name: str
    contact_email: str
    billing_email: str
    currency_code: str
    time_zone: str
    metadata: Mapping[str, str]
    external_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationFilter:
    """Which organizations are listed; an empty text, or no state, leaves none out but deleted ones."""

    name_contains: str = ""
    state: OrganizationState | None = None
    external_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What billing says of an organization."""

    plan_id: str
    restricted: bool
    suspended: bool
    state_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsWord:
    """What the operator says of an organization, whatever billing says."""

    state: OrganizationState
    suspend_reason: str


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
    last_use_time: datetime | None = None
    replaced_by_id: UUID | None = None
    key_prefix: str = ""

    def has_ended(self, now: datetime) -> bool:
        """Tell whether the key is revoked or expired."""
        return self.revoke_time is not None or (self.expire_time is not None and self.expire_time <= now)


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
class ImportedKey:
    """A key from another system that a caller wants to be accepted; checked by `rpc`."""

    sha256: bytes
    key_prefix: str
    name: str
    mode: KeyMode
    scopes: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    external_subject: str
    expire_time: datetime | None

    def lives_longer_than(self, other: ImportedKey) -> bool:
        """Tell which of two ends later."""
        if other.expire_time is None:
            return False
        return self.expire_time is None or self.expire_time > other.expire_time


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPrefixes:
    """What imported keys begin with, all of them."""

    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyChange:
    """What a caller wants to be different; only what `fields` names counts. Checked by `rpc`."""

    organization_id: UUID
    api_key_id: UUID
    fields: frozenset[str]
    name: str
    scopes: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    external_subject: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys of an organization are listed."""

    creator_id: UUID | None = None
    mode: KeyMode | None = None
    usable_at: datetime | None = None
    """Only keys that are neither revoked nor expired at this time."""


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
    plan_id: str = ""
    restricted: bool = False
    key_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person who may sign in; without a hash they cannot."""

    person_id: UUID
    email: str
    password_hash: str | None = field(repr=False)
    credential_version: int = 1
    """Counts changes of password and address."""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """How a person is written to."""

    email: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person in an organization."""

    organization_id: UUID
    person_id: UUID
    email: str
    name: str
    role: Role
    join_time: datetime
    second_factor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation to join an organization, without its token. Its state is what holds at the time of reading."""

    invitation_id: UUID
    organization_id: UUID
    organization_name: str
    email: str
    role: Role
    state: InvitationState
    inviter_id: UUID
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A person's role in an organization."""

    organization_id: UUID
    role: Role
    version: int
    """Grows with every change of it, also when the person leaves and joins again."""


class RevokeReason(Enum):
    """Why a session ended before its time."""

    SIGNED_OUT = "signed_out"
    SIGNED_OUT_EVERYWHERE = "signed_out_everywhere"
    REFRESH_TOKEN_REUSED = "refresh_token_reused"  # noqa: S105 it names a reason
    TOO_MANY = "too_many"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 it names a reason
    PASSWORD_RESET = "password_reset"  # noqa: S105 it names a reason
    EMAIL_CHANGED = "email_changed"
    SECOND_FACTOR_CHANGED = "second_factor_changed"
    MEMBERSHIP_ENDED = "membership_ended"
    ORGANIZATION_DELETED = "organization_deleted"
    PERSON_ERASED = "person_erased"


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
class SecondFactor:
    """A person's second factor; in force once it was confirmed."""

    person_id: UUID
    sealed_secret: Sealed = field(repr=False)
    newest_step: int | None
    failure_level: float
    failure_time: datetime
    create_time: datetime
    confirm_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRequest:
    """What a person asked for by e-mail; void once their credentials are of another version."""

    request_id: UUID
    person_id: UUID
    credential_version: int
    new_email: str = ""


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
    """A place where a person is signed in: one sign-in and all the tokens that came of it.

    Attributes:
        organization_id: Which of the person's organizations its tokens are for.
        expire_time: When it ends unless its tokens are renewed.
        end_time: When it ends however often they are.
        address: The client's at the sign-in.
        user_agent: What the client called itself there; may be empty.
    """

    session_id: UUID
    person_id: UUID
    organization_id: UUID
    create_time: datetime
    last_use_time: datetime
    expire_time: datetime
    end_time: datetime
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that session tokens are signed with.

    Attributes:
        public_key: 32 bytes.
        active_time: From when on tokens are signed with it.
        retire_time: When its last token has ended; None while it has no successor.
    """

    key_id: str
    public_key: bytes
    sealed_seed: Sealed = field(repr=False)
    active_time: datetime
    retire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTokens:
    """What a client gets when it signs in, and what the tokens say.

    Attributes:
        expire_time: From when on the access token is refused.
        refresh_token: Renews the session, once; empty where the one that the client has stays good.
        refresh_expire_time: From when on the session cannot be renewed.
    """

    access_token: str = field(repr=False)
    expire_time: datetime
    refresh_token: str = field(repr=False)
    refresh_expire_time: datetime
    session_id: UUID
    organization_id: UUID
    person_id: UUID
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A member that is not a person, without its token."""

    service_account_id: UUID
    organization_id: UUID
    name: str
    role: Role
    hint: str
    create_time: datetime
    expire_time: datetime
    platform_role: str | None = None
    creator_id: UUID | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServiceAccount:
    """What a caller wants a service account to be; checked by `rpc`."""

    organization_id: UUID
    name: str
    role: Role
    platform_role: str | None
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountChange:
    """What a caller wants to be different; None leaves a value as it is. Checked by `rpc`."""

    name: str | None = None
    role: Role | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedServiceAccount:
    """A service account and, this once, its token."""

    service_account: ServiceAccount
    token: str = field(repr=False)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which audit entries; what is empty does not filter. `action` may be all of a kind: `api_key.*`."""

    actor: str = ""
    action: str = ""
    resource: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def kind(self) -> str:
        """Return the kind of action that is asked for as a whole; empty where one action or any is."""
        return self.action.removesuffix(".*") if self.action.endswith(".*") else ""

    @property
    def exact_action(self) -> str:
        """Return the one action that is asked for; empty where a kind or any is."""
        return "" if self.kind else self.action


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlace:
    """Where an entry stands in the order of time."""

    create_time: datetime
    audit_entry_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSession:
    """A session whose tokens are refused from now on."""

    session_id: UUID
    change_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedMembership:
    """A membership whose tokens from before `version` are refused from now on."""

    person_id: UUID
    organization_id: UUID
    version: int
    change_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedOrganization:
    """The state of an organization."""

    organization_id: UUID
    state: OrganizationState
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedServiceAccount:
    """A service account that is another one now, or none."""

    service_account_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedTokens:
    """Whatever was issued before an instant is refused: there were more changes than are told one by one."""

    issued_before: datetime


PrincipalChange = EndedSession | ChangedMembership | ChangedOrganization | ChangedServiceAccount | RefusedTokens
