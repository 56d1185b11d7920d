"""What edges ask: which key is behind a digest, and what changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.auth.key_changes import KeyChanges
from services.auth.model import KeyGrant, KeyState
from services.auth.rpc.fields import MODES, to_timestamp
from services.auth.service import Accounts

DIGESTS_MAX: Final = 1_000
DIGEST_BYTES: Final = 32
_KEY_STATES: Final = {
    KeyState.ACTIVE: pb.KEY_STATE_ACTIVE,
    KeyState.REVOKED: pb.KEY_STATE_REVOKED,
    KeyState.ORGANIZATION_SUSPENDED: pb.KEY_STATE_ORGANIZATION_SUSPENDED,
}


class GrantRpcs:
    """`ResolveKeys` and `WatchKeys`.

    Args:
        accounts: Finds keys.
        key_changes: Watches keys.
    """

    def __init__(self, accounts: Accounts, key_changes: KeyChanges) -> None:
        self._resolver = accounts
        self._key_changes = key_changes

    async def ResolveKeys(self, request: pb.ResolveKeysRequest, context: Any) -> pb.ResolveKeysResponse:
        """Resolve key digests to grants."""
        grants = await self._resolver.resolve_keys(from_digests(request))
        return pb.ResolveKeysResponse(grants=[to_grant(grant) for grant in grants])

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        """Stream a snapshot of keys and then every change."""
        async for grants, snapshot_complete in self._key_changes.watch(size_max=request.snapshot_keys_max):
            yield to_watch_response(grants, snapshot_complete=snapshot_complete)


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
    )


def to_watch_response(grants: Iterable[KeyGrant], *, snapshot_complete: bool) -> pb.WatchKeysResponse:
    """Convert a part of a watch."""
    return pb.WatchKeysResponse(grants=[to_grant(grant) for grant in grants], snapshot_complete=snapshot_complete)
