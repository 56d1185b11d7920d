"""API keys on the wire."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import Clock
from mesh.database.idempotency import mutation
from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.keys import ApiKeys
from services.auth.model import ApiKey, CreatedApiKey, KeyMode, NewApiKey
from services.auth.rpc.fields import MODES, SUBJECT_LENGTH_MAX, check_text, read_time, to_timestamp

BATCH_KEYS_MAX: Final = 100
NAME_LENGTH_MAX: Final = 100
SCOPES_MAX: Final = 50
SCOPE_LENGTH_MAX: Final = 100
ALLOWED_IPS_MAX: Final = 100
_MODE_OF: Final = {
    pb.KEY_MODE_UNSPECIFIED: KeyMode.LIVE,
    pb.KEY_MODE_LIVE: KeyMode.LIVE,
    pb.KEY_MODE_TEST: KeyMode.TEST,
}


class ApiKeyRpcs:
    """Creating, revoking, getting and listing API keys.

    Args:
        keys: The rules.
        page_tokens: Pages.
        clock: For checking that an expiry lies ahead.
    """

    def __init__(self, keys: ApiKeys, page_tokens: PageTokens, clock: Clock) -> None:
        self._keys = keys
        self._key_pages = page_tokens
        self._clock = clock

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """Create an API key."""
        wanted = from_new_api_key(request, self._clock.now())
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=wanted.organization_id,
            principal=principal.subject,
            answer_type=pb.CreateApiKeyResponse,
            to_answer=to_created,
        )
        return await self._keys.create(wanted, principal, asked)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.ApiKey:
        """Revoke an API key."""
        organization_id, api_key_id = from_key_name(request)
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.ApiKey,
            to_answer=to_api_key,
        )
        return await self._keys.revoke(organization_id, api_key_id, principal, asked)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        """List an organization's API keys."""
        organization_id, creator_id = from_key_listing(request)
        listing = f"api_keys/{organization_id}/{creator_id or ''}"
        wanted = self._key_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._keys.list(
            organization_id, creator_id=creator_id, before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        page = self._key_pages.page(found, [key.api_key_id for key in found], request=wanted, listing=listing)
        return pb.ListApiKeysResponse(
            api_keys=[to_api_key(key) for key in page.rows], next_page_token=page.next_page_token
        )

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Any) -> pb.ApiKey:
        """Get an API key."""
        return to_api_key(await self._keys.get(*from_key_name(request)))

    async def BatchGetApiKeys(self, request: pb.BatchGetApiKeysRequest, context: Any) -> pb.BatchGetApiKeysResponse:
        """Get several API keys."""
        found = await self._keys.get_many(*from_batch_get(request))
        return pb.BatchGetApiKeysResponse(api_keys=[to_api_key(key) for key in found])


def from_new_api_key(request: pb.CreateApiKeyRequest, now: datetime) -> NewApiKey:
    """Check what a new key is to be."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    check_text(violations, "external_subject", request.external_subject, length_min=0, length_max=SUBJECT_LENGTH_MAX)
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
        expire_time = read_time(violations, "expire_time", request.expire_time)
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


def to_created(created: CreatedApiKey) -> pb.CreateApiKeyResponse:
    """Convert a new key; the only place where its secret leaves."""
    return pb.CreateApiKeyResponse(api_key=to_api_key(created.api_key), secret=created.secret)


def to_api_key(api_key: ApiKey) -> pb.ApiKey:
    """Convert a key."""
    return pb.ApiKey(
        api_key_id=str(api_key.api_key_id),
        organization_id=str(api_key.organization_id),
        name=api_key.name,
        hint=api_key.hint,
        mode=MODES[api_key.mode],
        scopes=api_key.scopes,
        allowed_ips=api_key.allowed_ips,
        external_subject=api_key.external_subject,
        creator_id=str(api_key.creator_id),
        create_time=to_timestamp(api_key.create_time),
        expire_time=to_timestamp(api_key.expire_time) if api_key.expire_time else None,
        revoke_time=to_timestamp(api_key.revoke_time) if api_key.revoke_time else None,
    )


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
