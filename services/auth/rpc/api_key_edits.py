"""Changing and rotating API keys on the wire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import Clock
from mesh.database.idempotency import mutation
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.key_edits import CHANGEABLE, KeyEdits
from services.auth.model import ApiKeyChange
from services.auth.rpc.api_key_fields import check_name, check_subject, read_expiry, read_networks, read_scopes
from services.auth.rpc.api_keys import to_api_key, to_created

OVERLAP_MAX: Final = timedelta(days=30)
_PATH: Final = "api_key."


class ApiKeyEditRpcs:
    """`UpdateApiKey` and `RotateApiKey`.

    Args:
        edits: The rules.
        clock: For checking that an expiry lies ahead.
    """

    def __init__(self, edits: KeyEdits, clock: Clock) -> None:
        self._edits = edits
        self._edit_clock = clock

    async def UpdateApiKey(self, request: pb.UpdateApiKeyRequest, context: Any) -> pb.ApiKey:
        """Change an API key."""
        change = from_update(request, self._edit_clock.now())
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=change.organization_id,
            principal=principal.subject,
            answer_type=pb.ApiKey,
            to_answer=to_api_key,
        )
        return await self._edits.update(change, principal, asked)

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """Replace an API key by a new one."""
        organization_id, api_key_id, overlap = from_rotate(request)
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.CreateApiKeyResponse,
            to_answer=to_created,
        )
        return await self._edits.rotate(organization_id, api_key_id, overlap, principal, asked)


def from_update(request: pb.UpdateApiKeyRequest, now: datetime) -> ApiKeyChange:
    """Check what is to be different; what the mask does not name is not looked at."""
    violations, wanted = Violations(), request.api_key
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    api_key_id = violations.read_uuid("api_key.api_key_id", wanted.api_key_id)
    same = wanted.organization_id in ("", request.organization_id)
    violations.check(same, "api_key.organization_id", "must be that of the request, or empty")
    fields = frozenset(request.update_mask.paths)
    known = ", ".join(sorted(CHANGEABLE))
    right = bool(fields) and fields <= CHANGEABLE
    violations.check(right, "update_mask", f"must name at least one field, and only these: {known}")
    if "name" in fields:
        check_name(violations, wanted, _PATH)
    if "external_subject" in fields:
        check_subject(violations, wanted, _PATH)
    end = wanted.expire_time if wanted.HasField("expire_time") else None
    change = ApiKeyChange(
        organization_id=organization_id,
        api_key_id=api_key_id,
        fields=fields,
        name=wanted.name,
        scopes=read_scopes(violations, wanted, _PATH) if "scopes" in fields else (),
        allowed_ips=read_networks(violations, wanted, _PATH) if "allowed_ips" in fields else (),
        external_subject=wanted.external_subject,
        expire_time=read_expiry(violations, end, now, _PATH) if "expire_time" in fields else None,
    )
    violations.raise_if_any()
    return change


def from_rotate(request: pb.RotateApiKeyRequest) -> tuple[UUID, UUID, timedelta]:
    """Check which key is replaced and return organization, key and overlap."""
    violations, overlap = Violations(), timedelta()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    api_key_id = violations.read_uuid("api_key_id", request.api_key_id)
    if request.HasField("overlap"):
        seconds = request.overlap.seconds + request.overlap.nanos / 1e9
        right = 0 <= seconds <= OVERLAP_MAX.total_seconds()
        if violations.check(right, "overlap", f"must be 0 to {OVERLAP_MAX.days} days"):
            overlap = timedelta(seconds=seconds)
    violations.raise_if_any()
    return organization_id, api_key_id, overlap
