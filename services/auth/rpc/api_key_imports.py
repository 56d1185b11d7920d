"""Importing API keys on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import Clock
from mesh.database.idempotency import mutation
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.key_imports import KeyImports
from services.auth.model import ApiKey, ImportedKey
from services.auth.rpc.api_key_fields import (
    MODE_OF,
    check_name,
    check_subject,
    read_expiry,
    read_networks,
    read_scopes,
)
from services.auth.rpc.api_keys import to_api_key

KEYS_MAX: Final = 1_000
SHA256_BYTES: Final = 32
PREFIX_LENGTH_MIN: Final = 4
PREFIX_LENGTH_MAX: Final = 20
RESERVED_BEGINNINGS: Final = ("sk_", "tw_")
VIOLATIONS_MAX: Final = 20
"""More than that are not told: an error has to fit into the trailers of an answer."""


class ApiKeyImportRpcs:
    """`ImportApiKeys`.

    Args:
        imports: The rules.
        clock: For checking that an expiry lies ahead.
    """

    def __init__(self, imports: KeyImports, clock: Clock) -> None:
        self._imports = imports
        self._import_clock = clock

    async def ImportApiKeys(self, request: pb.ImportApiKeysRequest, context: Any) -> pb.ImportApiKeysResponse:
        """Import API keys."""
        organization_id, wanted = from_import(request, self._import_clock.now())
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=principal.subject,
            answer_type=pb.ImportApiKeysResponse,
            to_answer=to_imported,
        )
        return await self._imports.run(organization_id, wanted, principal, asked)


def from_import(request: pb.ImportApiKeysRequest, now: datetime) -> tuple[UUID, list[ImportedKey]]:
    """Check which keys are imported and return the organization and the keys."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    violations.check(0 < len(request.api_keys) <= KEYS_MAX, "api_keys", f"must be 1 to {KEYS_MAX}")
    wanted: list[ImportedKey] = []
    first_of: dict[bytes, int] = {}
    for index, given in enumerate(request.api_keys[:KEYS_MAX]):
        if len(violations) >= VIOLATIONS_MAX:
            break
        path = f"api_keys[{index}]."
        first = first_of.setdefault(given.sha256, index)
        violations.check(len(given.sha256) == SHA256_BYTES, f"{path}sha256", f"must have {SHA256_BYTES} bytes")
        violations.check(first == index, f"{path}sha256", f"must not be that of api_keys[{first}]")
        wanted.append(_from_imported(violations, given, now, path))
    violations.raise_if_any()
    return organization_id, wanted


def _from_imported(violations: Violations, given: pb.ImportedApiKey, now: datetime, path: str) -> ImportedKey:
    prefix = given.key_prefix
    is_visible = prefix.isascii() and prefix.isprintable() and " " not in prefix
    violations.check(
        PREFIX_LENGTH_MIN <= len(prefix) <= PREFIX_LENGTH_MAX and is_visible,
        f"{path}key_prefix",
        f"must have {PREFIX_LENGTH_MIN} to {PREFIX_LENGTH_MAX} visible ASCII characters",
    )
    is_ours = prefix.lower().startswith(RESERVED_BEGINNINGS)
    violations.check(not is_ours, f"{path}key_prefix", f"must not begin with {' or '.join(RESERVED_BEGINNINGS)}")
    check_name(violations, given, path)
    check_subject(violations, given, path)
    violations.check(given.mode in MODE_OF, f"{path}mode", "must be live or test")
    end = given.expire_time if given.HasField("expire_time") else None
    return ImportedKey(
        sha256=given.sha256,
        key_prefix=prefix,
        name=given.name,
        mode=MODE_OF.get(given.mode, MODE_OF[pb.KEY_MODE_UNSPECIFIED]),
        scopes=read_scopes(violations, given, path),
        allowed_ips=read_networks(violations, given, path),
        external_subject=given.external_subject,
        expire_time=read_expiry(violations, end, now, path),
    )


def to_imported(api_keys: Sequence[ApiKey]) -> pb.ImportApiKeysResponse:
    """Convert imported keys."""
    return pb.ImportApiKeysResponse(api_keys=[to_api_key(api_key) for api_key in api_keys])
