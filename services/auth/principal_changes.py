"""Tells every verifier of tokens what has changed since they were signed, within a second (`change_streams` says how).

Triggers write each change down (`principal_changes`) and send one notice per transaction, however many changes it made.
What a change says stays as it was written, but for organizations: those are read as they are, and their version says
which of two is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from mesh.clock import Clock
from mesh.database.pools import Database
from mesh.rpc.principals import HELD_MAX, KEPT_SECONDS
from services.auth import store
from services.auth.change_streams import CHANGES_PER_MESSAGE_MAX, ChangeStreams
from services.auth.errors import PrincipalWatchUnavailable
from services.auth.model import PrincipalChange

CHANNEL: Final = "auth_principal_changes"
KEPT: Final = timedelta(seconds=KEPT_SECONDS)
REMOVED_AT_ONCE_MAX: Final = 10_000
_TRANSACTION_ID_LENGTH_MAX: Final = 18


class PrincipalChanges(ChangeStreams[PrincipalChange]):
    """Listens for changes of principals and hands them out. `run` it in the background.

    Args:
        db: Where they are; also listened on.
        clock: For what is too old to matter.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        super().__init__(db, channel=CHANNEL, ended=PrincipalWatchUnavailable)
        self._clock = clock

    async def take_snapshot(self, size_max: int) -> Iterator[tuple[PrincipalChange, ...]]:
        """Read what tokens that are valid may not know."""
        async with self._db.system() as tx:
            return await store.principals.take_snapshot(
                tx,
                since=self._clock.now() - KEPT,
                changes_max=min(size_max or HELD_MAX, HELD_MAX),
                part_size=CHANGES_PER_MESSAGE_MAX,
            )

    async def read_changes(self, notices: frozenset[str]) -> Sequence[PrincipalChange]:
        """Read what the transactions changed that notices name."""
        named = [int(each) for each in notices if _is_transaction_id(each)]
        if not named:
            return ()
        async with self._db.system() as tx:
            return await store.principals.find_changes(tx, named)


def _is_transaction_id(payload: str) -> bool:
    """Tell whether a notice may be one of ours; any role can send one, so it may be nonsense."""
    return payload.isascii() and payload.isdecimal() and len(payload) <= _TRANSACTION_ID_LENGTH_MAX


async def remove_old(db: Database, clock: Clock) -> int:
    """Remove what is older than `KEPT` and return how much there was; the daily clean-up."""
    removed = 0
    while True:
        async with db.system() as tx:
            count = await store.principals.remove_changes(tx, until=clock.now() - KEPT, limit=REMOVED_AT_ONCE_MAX)
        removed += count
        if count < REMOVED_AT_ONCE_MAX:
            return removed
