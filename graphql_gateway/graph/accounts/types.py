"""Organizations, API keys, callers and the audit log, as GraphQL shows them."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import cast
from uuid import UUID

import strawberry
from google.protobuf import json_format
from strawberry.scalars import JSON
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.options.v1 import access_pb2

from graphql_gateway.callers.identity import Identity, IdentityKind
from graphql_gateway.graph.context import Info
from graphql_gateway.graph.fields import field
from graphql_gateway.graph.relay import Node, global_id
from graphql_gateway.graph.times import from_timestamp, optional_time


@strawberry.enum(description="A member's role in an organization.")
class Role(Enum):
    """Numbers as in the contract."""

    OWNER = access_pb2.ROLE_OWNER
    ADMIN = access_pb2.ROLE_ADMIN
    MEMBER = access_pb2.ROLE_MEMBER


@strawberry.enum(description="A role of the operator's own people.")
class PlatformRole(Enum):
    """Numbers as in the contract."""

    ADMIN = access_pb2.PLATFORM_ROLE_ADMIN
    SUPPORT = access_pb2.PLATFORM_ROLE_SUPPORT
    GATEWAY = access_pb2.PLATFORM_ROLE_GATEWAY


@strawberry.enum(description="What kind of caller this is.")
class ViewerKind(Enum):
    """Who can be a viewer."""

    PERSON = IdentityKind.PERSON.value
    SERVICE_ACCOUNT = IdentityKind.SERVICE_ACCOUNT.value


@strawberry.enum(description="Whether an organization's requests are served.")
class OrganizationState(Enum):
    """Numbers as in the contract."""

    ACTIVE = auth.ORGANIZATION_STATE_ACTIVE
    SUSPENDED = auth.ORGANIZATION_STATE_SUSPENDED
    DELETED = auth.ORGANIZATION_STATE_DELETED


@strawberry.enum(description="Whether a key's requests are billed: LIVE, or metered apart and never billed: TEST.")
class KeyMode(Enum):
    """Numbers as in the contract."""

    LIVE = auth.KEY_MODE_LIVE
    TEST = auth.KEY_MODE_TEST


@strawberry.type(description="A tenant and paying customer.")
class Organization(Node):
    """An organization."""

    organization_id: UUID
    name: str
    state: OrganizationState
    external_id: str | None = strawberry.field(description="The operator's own id for it.")
    contact_email: str
    billing_email: str
    currency_code: str = strawberry.field(description="ISO 4217.")
    time_zone: str = strawberry.field(description="IANA name.")
    metadata: JSON = strawberry.field(description="Free-form pairs of the operator.")
    create_time: datetime
    plan_id: str | None = strawberry.field(description="The plan in force; null before billing said anything.")
    restricted: bool = strawberry.field(
        description="Whether an invoice is overdue: no new keys, members or service accounts."
    )
    suspend_reason: str | None = strawberry.field(description="Why it is suspended; null while it is not.")

    @classmethod
    def from_proto(cls, proto: auth.Organization) -> Organization:
        """Return what GraphQL shows of an organization."""
        return cls(
            id=global_id("Organization", proto.organization_id),
            organization_id=UUID(proto.organization_id),
            name=proto.name,
            state=OrganizationState(proto.state),
            external_id=proto.external_id or None,
            contact_email=proto.contact_email,
            billing_email=proto.billing_email,
            currency_code=proto.currency_code,
            time_zone=proto.time_zone,
            metadata=cast("JSON", dict(proto.metadata)),
            create_time=from_timestamp(proto.create_time),
            plan_id=proto.plan_id or None,
            restricted=proto.restricted,
            suspend_reason=proto.suspend_reason or None,
        )


@strawberry.type(description="An API key without its secret.")
class ApiKey(Node):
    """An API key."""

    api_key_id: UUID
    organization_id: UUID
    name: str
    hint: str = strawberry.field(description="The recognisable part of the key.")
    mode: KeyMode
    scopes: list[str]
    allowed_ips: list[str] = strawberry.field(description="Addresses or networks that may use it; empty: any.")
    external_subject: str | None
    creator_id: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None

    @field("Whose key it is.")
    async def organization(self, info: Info) -> Organization:
        """Look the organization up; keys of one organization share one call."""
        return Organization.from_proto(await info.context.loaders.organizations.load(self.organization_id))

    @classmethod
    def from_proto(cls, proto: auth.ApiKey) -> ApiKey:
        """Return what GraphQL shows of an API key."""
        return cls(
            id=global_id("ApiKey", proto.organization_id, proto.api_key_id),
            api_key_id=UUID(proto.api_key_id),
            organization_id=UUID(proto.organization_id),
            name=proto.name,
            hint=proto.hint,
            mode=KeyMode(proto.mode),
            scopes=list(proto.scopes),
            allowed_ips=list(proto.allowed_ips),
            external_subject=proto.external_subject or None,
            creator_id=proto.creator_id,
            create_time=from_timestamp(proto.create_time),
            expire_time=optional_time(proto, "expire_time"),
            revoke_time=optional_time(proto, "revoke_time"),
        )


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    kind: ViewerKind
    subject_id: str = strawberry.field(description="UUID of the person or service account.")
    organization_id: UUID | None
    role: Role | None
    platform_roles: list[PlatformRole]

    @field("The organization that the credentials are for.")
    async def organization(self, info: Info) -> Organization | None:
        """Look the organization up."""
        if self.organization_id is None:
            return None
        return Organization.from_proto(await info.context.loaders.organizations.load(self.organization_id))

    @classmethod
    def from_identity(cls, identity: Identity) -> Viewer:
        """Return a known caller."""
        return cls(
            kind=ViewerKind(identity.kind.value),
            subject_id=identity.subject,
            organization_id=identity.organization_id,
            role=Role(identity.role) if identity.role else None,
            platform_roles=[PlatformRole(role) for role in identity.platform_roles],
        )


@strawberry.type(description="One entry of the append-only audit log.")
class AuditEntry(Node):
    """An audit entry."""

    audit_entry_id: UUID
    organization_id: UUID
    actor: str = strawberry.field(description="UUID of a person or service account, or the name of a process.")
    action: str = strawberry.field(description="For example api_key.create.")
    resource: str = strawberry.field(description="What it was done to.")
    details: JSON
    create_time: datetime

    @classmethod
    def from_proto(cls, proto: auth.AuditEntry) -> AuditEntry:
        """Return what GraphQL shows of an audit entry."""
        return cls(
            id=global_id("AuditEntry", proto.organization_id, proto.audit_entry_id),
            audit_entry_id=UUID(proto.audit_entry_id),
            organization_id=UUID(proto.organization_id),
            actor=proto.actor,
            action=proto.action,
            resource=proto.resource,
            details=cast("JSON", json_format.MessageToDict(proto.details)),
            create_time=from_timestamp(proto.create_time),
        )


@strawberry.type(description="A session: send its token as Authorization: Bearer.")
class SignInPayload:
    """The answer of signIn."""

    access_token: str
    expire_time: datetime
    organization_id: UUID
    person_id: UUID
    role: Role

    @classmethod
    def from_proto(cls, proto: auth.CreateSessionResponse) -> SignInPayload:
        """Return a session."""
        return cls(
            access_token=proto.access_token,
            expire_time=from_timestamp(proto.expire_time),
            organization_id=UUID(proto.organization_id),
            person_id=UUID(proto.person_id),
            role=Role(proto.role),
        )


@strawberry.type(description="A new API key with its secret.")
class CreateApiKeyPayload:
    """The answer of createApiKey."""

    api_key: ApiKey
    secret: str = strawberry.field(description="The key itself. It is shown here and never again.")


@strawberry.type(description="The API key after it was revoked.")
class RevokeApiKeyPayload:
    """The answer of revokeApiKey."""

    api_key: ApiKey
