"""API keys on the wire."""

from __future__ import annotations

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
from services.auth.model import ApiKey, CreatedApiKey, KeyFilter, NewApiKey
from services.auth.rpc.api_key_fields import (
    MODE_OF,
    check_name,
    check_subject,
    read_expiry,
    read_networks,
    read_scopes,
)
from services.auth.rpc.fields import MODES, to_timestamp

BATCH_KEYS_MAX: Final = 100


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
        organization_id, wanted_keys = from_key_listing(request, self._clock.now())
        listing = f"api_keys/{organization_id}/{wanted_keys.creator_id or ''}/{request.mode}/{request.usable_only:d}"
        wanted = self._key_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._keys.list(organization_id, wanted_keys, before_id=wanted.after_id, limit=wanted.fetch_limit)
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
    check_name(violations, request)
    check_subject(violations, request)
    violations.check(request.mode in MODE_OF, "mode", "must be live or test")
    scopes = read_scopes(violations, request)
    allowed_ips = read_networks(violations, request)
    end = request.expire_time if request.HasField("expire_time") else None
    expire_time = read_expiry(violations, end, now)
    violations.raise_if_any()
    return NewApiKey(
        organization_id=organization_id,
        name=request.name,
        mode=MODE_OF[request.mode],
        scopes=scopes,
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


def from_key_listing(request: pb.ListApiKeysRequest, now: datetime) -> tuple[UUID, KeyFilter]:
    """Check which keys are listed and return the organization and what of it is wanted."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    creator_id = violations.read_uuid("creator_id", request.creator_id) if request.creator_id else None
    violations.check(request.mode in MODE_OF, "mode", "must be live or test")
    violations.raise_if_any()
    mode = MODE_OF[request.mode] if request.mode else None
    return organization_id, KeyFilter(creator_id=creator_id, mode=mode, usable_at=now if request.usable_only else None)


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
        last_use_time=to_timestamp(api_key.last_use_time) if api_key.last_use_time else None,
        replaced_by_id=str(api_key.replaced_by_id or ""),
        key_prefix=api_key.key_prefix,
    )
