"""What edges ask: which key is behind a digest, and what changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.auth.key_changes import KeyChanges
from services.auth.key_uses import KeyUses
from services.auth.model import KeyGrant, KeyPrefixes, KeyState
from services.auth.rpc.fields import MODES, to_timestamp
from services.auth.service import Accounts

DIGESTS_MAX: Final = 1_000
DIGEST_BYTES: Final = 32
USES_MAX: Final = 10_000
UUID_BYTES: Final = 16
AGE_SECONDS_MAX: Final = 366 * 86_400
_KEY_STATES: Final = {
    KeyState.ACTIVE: pb.KEY_STATE_ACTIVE,
    KeyState.REVOKED: pb.KEY_STATE_REVOKED,
    KeyState.ORGANIZATION_SUSPENDED: pb.KEY_STATE_ORGANIZATION_SUSPENDED,
}


class GrantRpcs:
    """`ResolveKeys`, `WatchKeys` and `ReportKeyUses`.

    Args:
        accounts: Finds keys.
        key_changes: Watches keys.
        key_uses: Stores when keys were used.
    """

    def __init__(self, accounts: Accounts, key_changes: KeyChanges, key_uses: KeyUses) -> None:
        self._resolver = accounts
        self._key_changes = key_changes
        self._key_uses = key_uses

    async def ResolveKeys(self, request: pb.ResolveKeysRequest, context: Any) -> pb.ResolveKeysResponse:
        """Resolve key digests to grants."""
        grants = await self._resolver.resolve_keys(from_digests(request))
        return pb.ResolveKeysResponse(grants=[to_grant(grant) for grant in grants])

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        """Stream a snapshot of keys and then every change."""
        async for changes, snapshot_complete in self._key_changes.watch(size_max=request.snapshot_keys_max):
            yield to_watch_response(changes, snapshot_complete=snapshot_complete)

    async def ReportKeyUses(self, request: pb.ReportKeyUsesRequest, context: Any) -> pb.ReportKeyUsesResponse:
        """Note when keys were last used."""
        await self._key_uses.record(from_uses(request))
        return pb.ReportKeyUsesResponse()


def from_digests(request: pb.ResolveKeysRequest) -> list[bytes]:
    """Check the digests of a request."""
    violations = Violations()
    violations.check(len(request.digests) <= DIGESTS_MAX, "digests", f"must be at most {DIGESTS_MAX}")
    right = all(len(digest) == DIGEST_BYTES for digest in request.digests)
    violations.check(right, "digests", f"must have {DIGEST_BYTES} bytes each")
    violations.raise_if_any()
    return list(request.digests)


def to_grant(grant: KeyGrant) -> pb.KeyGrant:
    """Convert a grant."""
    return pb.KeyGrant(
        digest=grant.digest,
        api_key_id=grant.api_key_id.bytes,
        organization_id=grant.organization_id.bytes,
        mode=MODES[grant.mode],
        state=_KEY_STATES[grant.state],
        scopes=grant.scopes,
        allowed_ips=grant.allowed_ips,
        external_subject=grant.external_subject,
        expire_time_us=to_timestamp(grant.expire_time).ToMicroseconds() if grant.expire_time else 0,
        version=grant.version,
        plan_id=grant.plan_id,
        restricted=grant.restricted,
        key_prefix=grant.key_prefix,
    )


def from_uses(request: pb.ReportKeyUsesRequest) -> list[tuple[UUID, UUID, timedelta]]:
    """Check a report and return (organization, key, how long ago) of each use."""
    violations = Violations()
    violations.check(len(request.uses) <= USES_MAX, "uses", f"must be at most {USES_MAX}")
    right = all(len(use.organization_id) == len(use.api_key_id) == UUID_BYTES for use in request.uses)
    violations.check(right, "uses", f"must name ids of {UUID_BYTES} bytes")
    recent = all(use.age_seconds <= AGE_SECONDS_MAX for use in request.uses)
    violations.check(recent, "uses", f"must be at most {AGE_SECONDS_MAX} seconds old")
    violations.raise_if_any()
    return [
        (UUID(bytes=use.organization_id), UUID(bytes=use.api_key_id), timedelta(seconds=use.age_seconds))
        for use in request.uses
    ]


def to_watch_response(changes: Iterable[KeyGrant | KeyPrefixes], *, snapshot_complete: bool) -> pb.WatchKeysResponse:
    """Convert a part of a watch."""
    response = pb.WatchKeysResponse(snapshot_complete=snapshot_complete)
    for change in changes:
        if isinstance(change, KeyPrefixes):
            response.imported_prefixes.CopyFrom(pb.ImportedPrefixes(prefixes=change.prefixes))
        else:
            response.grants.append(to_grant(change))
    return response
