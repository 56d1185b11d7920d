"""Digest -> grant, and digest -> unknown, both bounded.

`auth` pushes every change (see `watch`), so what is here is right to within a second while the push works. Without it
a grant lives 15 minutes and is refreshed in the background before that; while `auth` cannot be asked it goes on living,
because refusing every customer is worse than serving one whose key was revoked during the outage. A digest that `auth`
does not know is remembered for ten seconds, so that a flood of guesses with a right check sum costs one question each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.grant import Grant, from_message

GRANT_SECONDS: Final = 15 * 60.0
REFRESH_AFTER_SECONDS: Final = 12 * 60.0
UNKNOWN_SECONDS: Final = 10.0
GRANTS_MAX: Final = 1_000_000
UNKNOWN_MAX: Final = 100_000


class KeyCache:
    """The grants that this worker holds."""

    def __init__(self) -> None:
        # Messages are compiled when they are first used; most of a snapshot's 100,000 never are.
        self._grants: dict[bytes, tuple[auth.KeyGrant, float] | Grant] = {}
        self._unknown: dict[bytes, float] = {}
        self._snapshot: set[bytes] | None = None
        self.is_loaded = False
        self.changes = 0

    def __len__(self) -> int:
        return len(self._grants)

    def get(self, digest: bytes) -> Grant | None:
        """Return a grant that is held, whatever its age."""
        held = self._grants.get(digest)
        if held is None or isinstance(held, Grant):
            return held
        message, fresh_until = held
        grant = self._grants[digest] = from_message(message, fresh_until=fresh_until)
        return grant

    def is_unknown(self, digest: bytes, now: float) -> bool:
        """Tell whether `auth` said a moment ago that it does not know the digest."""
        until = self._unknown.get(digest)
        return until is not None and until > now

    def put(self, messages: Iterable[auth.KeyGrant], *, fresh_until: float) -> None:
        """Store grants in place of what is held for their digests."""
        for message in messages:
            digest = message.digest
            self._grants.pop(digest, None)
            self._unknown.pop(digest, None)
            self._grants[digest] = (message, fresh_until)
            if self._snapshot is not None:
                self._snapshot.add(digest)
        while len(self._grants) > GRANTS_MAX:
            self._grants.pop(next(iter(self._grants)))
        self.changes += 1

    def put_stored(self, messages: Iterable[auth.KeyGrant]) -> None:
        """Store grants of the snapshot on disk: older than whatever is held already."""
        for message in messages:
            self._grants.setdefault(message.digest, (message, 0.0))
        self.is_loaded = True

    def put_unknown(self, digests: Iterable[bytes], now: float) -> None:
        """Remember digests that `auth` does not know, and forget what is held for them."""
        for digest in digests:
            self._grants.pop(digest, None)
            self._unknown.pop(digest, None)
            self._unknown[digest] = now + UNKNOWN_SECONDS
        while len(self._unknown) > UNKNOWN_MAX:
            self._unknown.pop(next(iter(self._unknown)))

    def begin_snapshot(self) -> None:
        """Start noting which keys `auth` sends."""
        self._snapshot = set()

    def end_snapshot(self) -> None:
        """Forget every key that was not in the snapshot."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return
        for digest in [digest for digest in self._grants if digest not in snapshot]:
            del self._grants[digest]
        self._unknown.clear()
        self.is_loaded = True
        self.changes += 1

    def messages(self) -> Iterable[auth.KeyGrant]:
        """Return everything that is held, for the snapshot on disk."""
        return [to_message(held) if isinstance(held, Grant) else held[0] for held in self._grants.values()]


def to_message(grant: Grant) -> auth.KeyGrant:
    """Return a grant as `auth` described it."""
    return auth.KeyGrant(
        digest=grant.digest,
        api_key_id=grant.api_key_id,
        organization_id=grant.organization_id,
        mode=auth.KEY_MODE_TEST if grant.test_mode else auth.KEY_MODE_LIVE,
        state=auth.KeyState.ValueType(grant.state),
        scopes=sorted(grant.scopes),
        allowed_ips=[str(network) for network in grant.networks],
        external_subject=grant.external_subject,
        expire_time_us=grant.expire_time_us,
    )
