"""Digest -> grant, and digest -> refused, both bounded.

`auth` pushes every change (see `watch`), so what is here is right to within a second while the push works. Without it
a grant is asked for again in the background after 12 minutes, and after 15 minutes a request waits for the answer;
while `auth` cannot be asked a grant goes on living, because refusing every customer is worse than serving one whose key
was revoked during the outage. A digest that `auth` does not know, or calls revoked, is remembered for ten seconds, so
that a flood of guesses with a right check sum costs one question each.

Pushes, snapshots and answers to questions arrive in any order. A grant never replaces one with a higher version. An
answer that says "unknown" has no version; `resolve` drops it where a push or a snapshot came in between.

What must not be lost with this process waits in `unsaved` for `saver`: every change that `auth` pushed, every grant
that refuses, and every digest that a new snapshot no longer names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from tollway.auth.v1 import auth_service_pb2 as auth

from contract.key_prefixes import Prefixes
from edge_proxy.keys.grant import Grant, from_message

GRANT_SECONDS: Final = 15 * 60.0
REFRESH_AFTER_SECONDS: Final = 12 * 60.0
REFUSED_SECONDS: Final = 10.0
GRANTS_MAX: Final = 1_000_000
REFUSED_MAX: Final = 100_000
UNSAVED_MAX: Final = 10_000
"""Above this a snapshot is cheaper than single changes."""

Held = tuple[auth.KeyGrant, float] | Grant


class KeyCache:
    """The grants that this worker holds."""

    def __init__(self) -> None:
        # Messages are compiled when they are first used; most of a snapshot's 100,000 never are.
        self._grants: dict[bytes, Held] = {}
        self._refused: dict[bytes, float] = {}
        self._snapshot: set[bytes] | None = None
        self.prefixes = Prefixes()
        self.is_loaded = False
        self.changes = 0
        self.snapshots = 0
        self.unsaved: dict[bytes, auth.KeyGrant] = {}
        self.snapshot_wanted = False
        self.save_needed = asyncio.Event()

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

    def is_refused(self, digest: bytes, now: float) -> bool:
        """Tell whether `auth` said a moment ago that it does not know the digest, or that it is revoked."""
        until = self._refused.get(digest)
        return until is not None and until > now

    def push(self, messages: Iterable[auth.KeyGrant], *, fresh_until: float) -> None:
        """Store what the watch brought."""
        for message in messages:
            if self._snapshot is not None:
                self._snapshot.add(message.digest)
            self._put(message, fresh_until, save_new=self._snapshot is None)
        self._drop_oldest()

    def put(self, messages: Iterable[auth.KeyGrant], *, fresh_until: float) -> None:
        """Store answers to questions. A snapshot under way may be newer than they are, so they do not stand for it."""
        for message in messages:
            self._put(message, fresh_until, save_new=False)
        self._drop_oldest()

    def put_stored(self, messages: Iterable[auth.KeyGrant], prefixes: Iterable[str] = (), *, now: float) -> None:
        """Store what the files hold: older than whatever is held already, and to be asked for when it is used."""
        known = {*prefixes, *self.prefixes.listed}
        for message in messages:
            self._grants.setdefault(message.digest, (message, now))
            if message.key_prefix:
                known.add(message.key_prefix)
        self.prefixes = Prefixes(known)
        self.is_loaded = True

    def put_prefixes(self, prefixes: Iterable[str]) -> None:
        """Store what imported keys begin with, all of them."""
        before, self.prefixes = self.prefixes, Prefixes(prefixes)
        if self.prefixes.listed != before.listed:
            self.changes += 1

    def put_unknown(self, digests: Iterable[bytes], now: float) -> None:
        """Remember digests that `auth` does not know, and forget what is held for them."""
        for digest in digests:
            held = self._grants.pop(digest, None)
            if held is not None:
                self._save(_forgotten(held))
            self.refuse(digest, now)

    def refuse(self, digest: bytes, now: float) -> None:
        """Remember for a moment that a digest is refused."""
        self._refused.pop(digest, None)
        self._refused[digest] = now + REFUSED_SECONDS
        if len(self._refused) > REFUSED_MAX:
            self._refused.pop(next(iter(self._refused)))

    def begin_snapshot(self) -> None:
        """Start noting which keys `auth` sends."""
        self._snapshot = set()

    def end_snapshot(self) -> None:
        """Forget every key that was not in the snapshot."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return
        for digest in [digest for digest in self._grants if digest not in snapshot]:
            self._save(_forgotten(self._grants.pop(digest)))
        self._refused.clear()
        self.is_loaded = True
        self.changes += 1
        self.snapshots += 1

    def messages(self) -> list[auth.KeyGrant]:
        """Return everything that is held, for the snapshot on disk."""
        return [_message(held) for held in self._grants.values()]

    def take_unsaved(self) -> list[auth.KeyGrant]:
        """Return what has to be written and forget that it had to."""
        taken, self.unsaved = self.unsaved, {}
        self.save_needed.clear()
        return list(taken.values())

    def give_unsaved_back(self, messages: Iterable[auth.KeyGrant]) -> None:
        """Take back what could not be written, unless something newer waits by now."""
        for message in messages:
            if message.digest not in self.unsaved:
                self._save(message)

    def _put(self, message: auth.KeyGrant, fresh_until: float, *, save_new: bool) -> None:
        digest = message.digest
        held = self._grants.pop(digest, None)
        if held is not None and _message(held).version > message.version:
            self._grants[digest] = held
            return
        self._refused.pop(digest, None)
        self._grants[digest] = (message, fresh_until)
        self.changes += 1
        # A new key that serves and is lost costs a question; one that refuses must not be lost.
        is_new = held is None and (save_new or message.state != auth.KEY_STATE_ACTIVE)
        if is_new or (held is not None and _message(held) != message):
            self._save(message)

    def _drop_oldest(self) -> None:
        while len(self._grants) > GRANTS_MAX:
            self._grants.pop(next(iter(self._grants)))

    def _save(self, message: auth.KeyGrant) -> None:
        if len(self.unsaved) < UNSAVED_MAX:
            self.unsaved[message.digest] = message
        else:
            self.snapshot_wanted = True
        self.save_needed.set()


def _message(held: Held) -> auth.KeyGrant:
    return held.message if isinstance(held, Grant) else held[0]


def _forgotten(held: Held) -> auth.KeyGrant:
    """Return a record that a grant, up to its version, is no longer to be used; `auth` never sends this state."""
    message = _message(held)
    return auth.KeyGrant(digest=message.digest, version=message.version, state=auth.KEY_STATE_UNSPECIFIED)
