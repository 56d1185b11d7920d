"""Between protobuf and auth's values. Requests are checked here, completely, before anything else sees them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from google.protobuf import json_format, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.rpc.errors import Violations
from services.auth.model import (
    ApiKey,
    AuditEntry,
    KeyGrant,
    KeyMode,
    KeyState,
    NewApiKey,
    Organization,
    OrganizationState,
    Role,
    ServiceAccount,
    Session,
)
from services.auth.passwords import PASSWORD_LENGTH_MAX

DIGESTS_MAX: Final = 1_000
DIGEST_BYTES: Final = 32
BATCH_KEYS_MAX: Final = 100
AUDIT_ENTRIES_MAX: Final = 1_000
NAME_LENGTH_MAX: Final = 100
SCOPES_MAX: Final = 50
SCOPE_LENGTH_MAX: Final = 100
ALLOWED_IPS_MAX: Final = 100
SUBJECT_LENGTH_MAX: Final = 200
EMAIL_LENGTH_MAX: Final = 254

_MODES: Final = {KeyMode.LIVE: pb.KEY_MODE_LIVE, KeyMode.TEST: pb.KEY_MODE_TEST}
_MODE_OF: Final = {
    pb.KEY_MODE_UNSPECIFIED: KeyMode.LIVE,
    pb.KEY_MODE_LIVE: KeyMode.LIVE,
    pb.KEY_MODE_TEST: KeyMode.TEST,
}
_KEY_STATES: Final = {
    KeyState.ACTIVE: pb.KEY_STATE_ACTIVE,
    KeyState.REVOKED: pb.KEY_STATE_REVOKED,
    KeyState.ORGANIZATION_SUSPENDED: pb.KEY_STATE_ORGANIZATION_SUSPENDED,
}
_ORGANIZATION_STATES: Final = {
    OrganizationState.ACTIVE: pb.ORGANIZATION_STATE_ACTIVE,
    OrganizationState.SUSPENDED: pb.ORGANIZATION_STATE_SUSPENDED,
}
_ROLES: Final = {
    Role.OWNER: access_pb2.ROLE_OWNER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
}
_PLATFORM_ROLES: Final = {
    "platform_admin": access_pb2.PLATFORM_ROLE_ADMIN,
    "platform_support": access_pb2.PLATFORM_ROLE_SUPPORT,
}


def to_mode(mode: KeyMode) -> pb.KeyMode.ValueType:
    """Convert a mode."""
    return _MODES[mode]


def to_grant(grant: KeyGrant) -> pb.KeyGrant:
    """Convert a grant."""
    return pb.KeyGrant(
        digest=grant.digest,
        api_key_id=grant.api_key_id.bytes,
        organization_id=grant.organization_id.bytes,
        mode=_MODES[grant.mode],
        state=_KEY_STATES[grant.state],
        scopes=grant.scopes,
        allowed_ips=grant.allowed_ips,
        external_subject=grant.external_subject,
        expire_time_us=_microseconds(grant.expire_time) if grant.expire_time else 0,
        version=grant.version,
    )


def to_watch_response(grants: Iterable[KeyGrant], *, snapshot_complete: bool) -> pb.WatchKeysResponse:
    """Convert a part of a watch."""
    return pb.WatchKeysResponse(grants=[to_grant(grant) for grant in grants], snapshot_complete=snapshot_complete)


def to_organization(organization: Organization) -> pb.Organization:
    """Convert an organization."""
    return pb.Organization(
        organization_id=str(organization.organization_id),
        name=organization.name,
        state=_ORGANIZATION_STATES[organization.state],
        external_id=organization.external_id,
        contact_email=organization.contact_email,
        billing_email=organization.billing_email,
        currency_code=organization.currency_code,
        time_zone=organization.time_zone,
        metadata=organization.metadata,
        create_time=to_timestamp(organization.create_time),
    )


def to_api_key(api_key: ApiKey) -> pb.ApiKey:
    """Convert a key."""
    return pb.ApiKey(
        api_key_id=str(api_key.api_key_id),
        organization_id=str(api_key.organization_id),
        name=api_key.name,
        hint=api_key.hint,
        mode=_MODES[api_key.mode],
        scopes=api_key.scopes,
        allowed_ips=api_key.allowed_ips,
        external_subject=api_key.external_subject,
        creator_id=str(api_key.creator_id),
        create_time=to_timestamp(api_key.create_time),
        expire_time=to_timestamp(api_key.expire_time) if api_key.expire_time else None,
        revoke_time=to_timestamp(api_key.revoke_time) if api_key.revoke_time else None,
    )


def to_session(session: Session) -> pb.CreateSessionResponse:
    """Convert a session."""
    return pb.CreateSessionResponse(
        access_token=session.access_token,
        expire_time=to_timestamp(session.expire_time),
        organization_id=str(session.organization_id),
        person_id=str(session.person_id),
        role=_ROLES[session.role],
    )


def to_service_account(account: ServiceAccount | None) -> pb.ResolveServiceAccountResponse:
    """Convert a service account, or that there is none."""
    if account is None:
        return pb.ResolveServiceAccountResponse(valid=False)
    return pb.ResolveServiceAccountResponse(
        valid=True,
        service_account_id=str(account.service_account_id),
        organization_id=str(account.organization_id),
        role=_ROLES[account.role],
        platform_roles=[_PLATFORM_ROLES[account.platform_role]] if account.platform_role else [],
    )


def to_audit_entry(entry: AuditEntry) -> pb.AuditEntry:
    """Convert an audit entry."""
    converted = pb.AuditEntry(
        audit_entry_id=str(entry.audit_entry_id),
        organization_id=str(entry.organization_id),
        actor=entry.actor,
        action=entry.action,
        resource=entry.resource,
        create_time=to_timestamp(entry.create_time),
    )
    converted.details.update(entry.details)
    return converted


def to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """Convert an instant."""
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def from_digests(request: pb.ResolveKeysRequest) -> list[bytes]:
    """Check the digests of a request."""
    violations = Violations()
    violations.check(len(request.digests) <= DIGESTS_MAX, "digests", f"must be at most {DIGESTS_MAX}")
    right = all(len(digest) == DIGEST_BYTES for digest in request.digests)
    violations.check(right, "digests", f"must have {DIGEST_BYTES} bytes each")
    violations.raise_if_any()
    return list(request.digests)


def from_sign_in(request: pb.CreateSessionRequest) -> tuple[str, str, UUID | None]:
    """Check a sign-in and return address, password and organization."""
    violations = Violations()
    violations.check(
        0 < len(request.email) <= EMAIL_LENGTH_MAX, "email", f"must have 1 to {EMAIL_LENGTH_MAX} characters"
    )
    violations.check(
        0 < len(request.password) <= PASSWORD_LENGTH_MAX,
        "password",
        f"must have 1 to {PASSWORD_LENGTH_MAX} characters",
    )
    organization_id = None
    if request.organization_id:
        organization_id = violations.read_uuid("organization_id", request.organization_id)
    violations.raise_if_any()
    return request.email, request.password, organization_id


def from_new_api_key(request: pb.CreateApiKeyRequest, now: datetime) -> NewApiKey:
    """Check what a new key is to be."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    _check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    _check_text(violations, "external_subject", request.external_subject, length_min=0, length_max=SUBJECT_LENGTH_MAX)
    violations.check(request.mode in _MODE_OF, "mode", "must be live or test")
    violations.check(len(request.scopes) <= SCOPES_MAX, "scopes", f"must be at most {SCOPES_MAX}")
    for index, scope in enumerate(request.scopes[:SCOPES_MAX]):
        violations.check(
            0 < len(scope) <= SCOPE_LENGTH_MAX and scope.isascii() and scope.isprintable() and " " not in scope,
            f"scopes[{index}]",
            f"must have 1 to {SCOPE_LENGTH_MAX} visible ASCII characters",
        )
    allowed_ips = _read_networks(violations, request.allowed_ips)
    expire_time = None
    if request.HasField("expire_time"):
        expire_time = _read_time(violations, "expire_time", request.expire_time)
        violations.check(expire_time is None or expire_time > now, "expire_time", "must be in the future")
    violations.raise_if_any()
    return NewApiKey(
        organization_id=organization_id,
        name=request.name,
        mode=_MODE_OF[request.mode],
        scopes=tuple(dict.fromkeys(request.scopes)),
        allowed_ips=allowed_ips,
        external_subject=request.external_subject,
        expire_time=expire_time,
    )


def from_key_name(request: pb.RevokeApiKeyRequest | pb.GetApiKeyRequest) -> tuple[UUID, UUID]:
    """Check a request that names a key and return organization and key."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    api_key_id = violations.read_uuid("api_key_id", request.api_key_id)
    violations.raise_if_any()
    return organization_id, api_key_id


def from_batch_get(request: pb.BatchGetApiKeysRequest) -> tuple[UUID, list[UUID]]:
    """Check which keys are wanted and return organization and keys."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    violations.check(len(request.api_key_ids) <= BATCH_KEYS_MAX, "api_key_ids", f"must be at most {BATCH_KEYS_MAX}")
    api_key_ids = [
        violations.read_uuid(f"api_key_ids[{index}]", text)
        for index, text in enumerate(request.api_key_ids[:BATCH_KEYS_MAX])
    ]
    violations.raise_if_any()
    return organization_id, api_key_ids


def from_key_listing(request: pb.ListApiKeysRequest) -> tuple[UUID, UUID | None]:
    """Check whose keys are listed and return organization and creator."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    creator_id = violations.read_uuid("creator_id", request.creator_id) if request.creator_id else None
    violations.raise_if_any()
    return organization_id, creator_id


def from_audit_entries(request: pb.AppendAuditEntriesRequest) -> list[AuditEntry]:
    """Check entries of another service."""
    violations = Violations()
    violations.check(len(request.entries) <= AUDIT_ENTRIES_MAX, "entries", f"must be at most {AUDIT_ENTRIES_MAX}")
    entries = [
        _from_audit_entry(violations, f"entries[{index}]", entry)
        for index, entry in enumerate(request.entries[:AUDIT_ENTRIES_MAX])
    ]
    violations.raise_if_any()
    return [entry for entry in entries if entry is not None]


def _from_audit_entry(violations: Violations, path: str, entry: pb.AuditEntry) -> AuditEntry | None:
    entry_id = violations.read_uuid(f"{path}.audit_entry_id", entry.audit_entry_id)
    organization_id = violations.read_uuid(f"{path}.organization_id", entry.organization_id)
    for name in ("actor", "action", "resource"):
        _check_text(violations, f"{path}.{name}", getattr(entry, name), length_min=1, length_max=SUBJECT_LENGTH_MAX)
    create_time = _read_time(violations, f"{path}.create_time", entry.create_time)
    if create_time is None:
        return None
    return AuditEntry(
        audit_entry_id=entry_id,
        organization_id=organization_id,
        actor=entry.actor,
        action=entry.action,
        resource=entry.resource,
        details=json_format.MessageToDict(entry.details),
        create_time=create_time,
    )


def _check_text(violations: Violations, field: str, text: str, *, length_min: int, length_max: int) -> None:
    right = length_min <= len(text) <= length_max and (text.isprintable())
    violations.check(right, field, f"must have {length_min} to {length_max} printable characters")


def _read_networks(violations: Violations, networks: Iterable[str]) -> tuple[str, ...]:
    given = list(networks)
    violations.check(len(given) <= ALLOWED_IPS_MAX, "allowed_ips", f"must be at most {ALLOWED_IPS_MAX}")
    read = []
    for index, text in enumerate(given[:ALLOWED_IPS_MAX]):
        try:
            read.append(str(ipaddress.ip_network(text, strict=True)))
        except ValueError:
            violations.add(f"allowed_ips[{index}]", "must be an address or a network, for example 192.0.2.0/24")
    return tuple(read)


def _read_time(violations: Violations, field: str, timestamp: timestamp_pb2.Timestamp) -> datetime | None:
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        violations.add(field, "must be a valid time")
        return None


def _microseconds(instant: datetime) -> int:
    return to_timestamp(instant).ToMicroseconds()
