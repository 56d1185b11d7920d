"""What becomes of events that could not be taken in: operators look at them, take them in again or give them up.

A dead letter waits until somebody decides, and metering's health is degraded as long as one does. A replay goes through
the ordinary ingest, in the transaction that also notes the decision and the job for the audit log: either the event is
counted and the letter is done, or neither. Deciding twice changes nothing the second time, so a call whose answer was
lost is simply made again.

A `conflict` is not taken in once the id that it met may be forgotten (`AGE_MAX` after its arrival): it would then be
counted beside the event that it contradicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Gauge

from mesh import audit
from mesh.clock import Clock
from mesh.database.pools import Connection, Database
from mesh.ids import IdSource
from services.metering import store
from services.metering.errors import DeadLetterNotFound
from services.metering.event_times import AGE_MAX
from services.metering.ingest import Ingester
from services.metering.model import (
    DeadLetterKey,
    DeadLetterPlace,
    DeadReason,
    IngestBatch,
    LetterState,
    Source,
    StoredLetter,
)

REPLAY_SOURCE: Final = Source(name="dead-letters", partition=0)
WAITING_COUNTED_MAX: Final = 10_000

_WAITING: Final = Gauge(
    "tollway_metering_dead_letters_waiting", f"Dead letters that wait for an operator, at most {WAITING_COUNTED_MAX}"
)

log = structlog.get_logger()


class DeadLettersWaiting(Exception):
    """Events could not be taken in; an operator has to look at them."""


class DeadLetters:
    """Looks after dead letters.

    Args:
        db: Where they are.
        ingester: Takes them in again.
        clock: When a decision is made.
        ids: For audit entries.
    """

    def __init__(self, *, db: Database, ingester: Ingester, clock: Clock, ids: IdSource) -> None:
        self._db = db
        self._ingester = ingester
        self._clock = clock
        self._ids = ids

    async def check(self) -> None:
        """Do nothing while no dead letter waits.

        Raises:
            DeadLettersWaiting: At least one does.
        """
        async with self._db.system() as tx:
            count = await store.count_waiting_letters(tx, count_max=WAITING_COUNTED_MAX)
        _WAITING.set(count)
        if count:
            raise DeadLettersWaiting(str(count))

    async def list(self, state: LetterState, *, after: DeadLetterPlace | None, limit: int) -> Sequence[StoredLetter]:
        """List dead letters in one state, the oldest first, from behind a place."""
        async with self._db.system() as tx:
            return await store.list_letters(tx, state, after=after, limit=limit)

    async def get(self, key: DeadLetterKey) -> StoredLetter:
        """Return one dead letter.

        Raises:
            DeadLetterNotFound: There is none.
        """
        async with self._db.system() as tx:
            return await self._find(tx, key)

    async def replay(
        self, keys: Sequence[DeadLetterKey], *, organization_id: UUID, actor: str
    ) -> Sequence[StoredLetter]:
        """Take waiting dead letters in again, each in a transaction of its own; return all as they are afterwards.

        Args:
            keys: Which.
            organization_id: Whose audit log is told.
            actor: Who decided.

        Raises:
            DeadLetterNotFound: One does not exist; those before it are done.
        """
        return [await self._replay_one(key, organization_id, actor) for key in keys]

    async def drop(self, keys: Sequence[DeadLetterKey], *, organization_id: UUID, actor: str) -> Sequence[StoredLetter]:
        """Give waiting dead letters up; return all as they are afterwards. Arguments and errors are as in `replay`."""
        dropped = []
        for key in keys:
            async with self._db.system() as tx:
                letter = await self._find(tx, key, is_locked=True)
                if letter.state is LetterState.WAITING:
                    letter = await self._resolve(tx, letter, LetterState.DROPPED, organization_id, actor)
                dropped.append(letter)
        return dropped

    async def _replay_one(self, key: DeadLetterKey, organization_id: UUID, actor: str) -> StoredLetter:
        async with self._db.system() as tx:
            letter = await self._find(tx, key, is_locked=True)
            if letter.state is not LetterState.WAITING or _is_forgotten_conflict(letter, self._clock.now()):
                return letter
            batch = IngestBatch(source=REPLAY_SOURCE, next_offset=None, payloads=[letter.payload])
            (result,) = await self._ingester.apply_in(tx, [batch])
            if not result.accepted_count and not result.duplicate_count:
                return letter
            return await self._resolve(tx, letter, LetterState.REPLAYED, organization_id, actor)

    async def _find(self, tx: Connection, key: DeadLetterKey, *, is_locked: bool = False) -> StoredLetter:
        letter = await store.find_letter(tx, key, is_locked=is_locked)
        if letter is None:
            raise DeadLetterNotFound(f"{key.payload_hash.hex()} {key.reason.value}")
        return letter

    async def _resolve(
        self, tx: Connection, letter: StoredLetter, state: LetterState, organization_id: UUID, actor: str
    ) -> StoredLetter:
        now, key = self._clock.now(), letter.place.key
        resolved = await store.resolve_letter(tx, key, state=state, now=now, resolver=actor)
        await audit.enqueue(
            tx,
            job_id=self._ids.uuid7(),
            organization_id=organization_id,
            action=f"dead_letter.{state.value}",
            resource=f"dead_letter/{key.payload_hash.hex()}-{key.reason.value}",
            now=now,
            before={"state": letter.state.value},
            after={"state": state.value},
            details={"source": letter.source.name, "source_partition": letter.source.partition},
        )
        log.info("dead_letter_resolved", state=state.value, reason=key.reason.value)
        return resolved


def _is_forgotten_conflict(letter: StoredLetter, now: datetime) -> bool:
    return letter.place.key.reason is DeadReason.CONFLICT and letter.place.create_time < now - AGE_MAX
