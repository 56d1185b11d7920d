"""Tells every watching edge about a changed API key within a second of the commit (`change_streams` says how).

A grant that was read just before a snapshot may be sent just after it and be older. Its version says so, and edges keep
the grant with the higher version.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from services.auth import store
from services.auth.change_streams import CHANGES_PER_MESSAGE_MAX, ChangeStreams
from services.auth.errors import KeyWatchUnavailable
from services.auth.model import KeyGrant, KeyPrefixes

CHANNEL: Final = "auth_key_changes"
SNAPSHOT_KEYS_MAX: Final = 100_000
PREFIXES_MAX: Final = 10_000
"""Of imported keys in the installation: every edge holds them all."""


class KeyChanges(ChangeStreams[KeyGrant | KeyPrefixes]):
    """Listens for changed keys and hands their grants out. `run` it in the background.

    With the grants goes what imported keys begin with: in every snapshot, and ahead of a changed imported key.

    Args:
        db: Where keys are; also listened on.
        clock: For expiry in snapshots.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        super().__init__(db, channel=CHANNEL, ended=KeyWatchUnavailable)
        self._clock = clock
        self._told: KeyPrefixes | None = None

    async def take_snapshot(self, size_max: int) -> Iterator[tuple[KeyGrant | KeyPrefixes, ...]]:
        """Read the keys that can serve a request, the busiest first."""
        # This stream is told what the others may not have been told yet, so the next change tells all of them.
        self._told = None
        async with self._db.system() as tx:
            prefixes = await _read_prefixes(tx)
            grants = await store.keys.take_snapshot(
                tx,
                keys_max=min(size_max or SNAPSHOT_KEYS_MAX, SNAPSHOT_KEYS_MAX),
                now=self._clock.now(),
                part_size=CHANGES_PER_MESSAGE_MAX,
            )
        return itertools.chain([(prefixes, *next(grants, ()))], grants)

    async def read_changes(self, notices: frozenset[str]) -> Sequence[KeyGrant | KeyPrefixes]:
        """Read the grants of what was named; a notice that names nothing of ours is left out."""
        named = [each for each in map(_read_notice, notices) if each is not None]
        keys = sorted(each for each in named if len(each) == 2)
        organizations = sorted({each[0] for each in named if len(each) == 1})
        if not named:
            return ()
        async with self._db.system() as tx:
            grants = await store.keys.find_changed_grants(tx, keys) if keys else []
            grants += await store.keys.find_organizations_grants(tx, organizations) if organizations else []
            if not any(grant.key_prefix for grant in grants):
                return grants
            prefixes = await _read_prefixes(tx)
        if prefixes == self._told:
            return grants
        self._told = prefixes
        return [prefixes, *grants]


async def _read_prefixes(tx: Connection) -> KeyPrefixes:
    return KeyPrefixes(prefixes=tuple(await store.keys.list_prefixes(tx, prefixes_max=PREFIXES_MAX)))


def _read_notice(payload: str) -> tuple[UUID, UUID] | tuple[UUID] | None:
    """Return which key or organization a notice names; any role can send one, so it may be nonsense."""
    try:
        match payload.split(" "):
            case ["key", organization_id, api_key_id]:
                return UUID(organization_id), UUID(api_key_id)
            case ["organization", organization_id]:
                return (UUID(organization_id),)
    except ValueError:
        return None
    return None
