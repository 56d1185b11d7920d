"""Takes batches of events in: the one way, whether they come over gRPC or from Kafka.

**Exactly once.** One transaction per call holds everything that must not come apart: the ids that were seen, the
events, their sums, the dead letters and the position in the source. It either commits, and the sender may forget the
batch, or it does not, and the sender sends it again. What comes again is recognised by (organization, event id) within
`DEDUPE_WINDOW`; the same id with other bytes is a conflict and goes to the dead letters.

**What runs concurrently.** Any number of calls, on any number of replicas, with overlapping events. Two that hold the
same id meet at the unique constraint: the second waits for the first to commit, then skips the event. All of them take
locks in one order: arrival week (shared), offsets by source, partitions, ids by id, rollups by key, dead letters.

**The turn of the week.** The unique constraint only holds within a week of arrival. `arrival_weeks` closes the gap:
every transaction holds its one row FOR SHARE, and moving it to the next week waits for all of them. So no transaction
that files under the new week can miss an id that one of the old week is still about to commit.

**What comes again after the ids are forgotten.** A journal that is restored from a backup brings events whose ids were
dropped. Its recorded position tells: a batch that ends before a position that was recorded longer ago than ids are kept
was taken in then, so its events that are that old become `too_old` dead letters. An event that is old in a batch that
is new only has a wrong clock, and is taken in (`event_times.py`).

**What fails and how.** Unreadable and invalid events become dead letters and never stop a batch. PostgreSQL away:
`DatabaseUnavailable`, nothing is acknowledged. A missing partition (late or early event) is made in the transaction
that needs it; making one that exists does nothing, and those that this process has made sure of are remembered.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from prometheus_client import Counter

from contract.events import index_of
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.observability import span
from services.metering import event_times, store
from services.metering.event_parsing import DEDUPE_WINDOW, ID_LOOKUP_MARGIN, hash_of, parse, traceparent_of
from services.metering.model import BatchResult, DeadLetter, DeadReason, IngestBatch, Poison, Source, StagedEvent
from services.metering.weeks import week_number_of, week_of, week_of_number

EVENTS_PER_BATCH_MAX: Final = 5_000
EVENTS_PER_TRANSACTION_MAX: Final = 5_000
PARTITIONS_REMEMBERED_MAX: Final = 1_000
TRACES_LINKED_MAX: Final = 32

_FORGOTTEN: Final = Poison(reason=DeadReason.TOO_OLD, detail="id: taken in before the ids of that time were dropped")
_START_TIME_US: Final = index_of("start_time_us")
_TIME_SUSPECT: Final = index_of("time_suspect")
_PAYLOAD_HASH: Final = index_of("payload_hash")
_ID_TIME_US: Final = index_of("id_time_us")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EVENTS: Final = Counter("tollway_metering_events_total", "Events by what became of them", ["result"])
_DEAD: Final = Counter("tollway_metering_dead_letters_total", "Events that were not taken in", ["reason"])
_SUSPECT: Final = Counter(
    "tollway_metering_time_suspect_events_total", "Events that arrived with times that are not believed", ["reason"]
)
_TRANSACTIONS: Final = Counter("tollway_metering_ingest_transactions_total", "Committed ingest transactions")


@dataclass(slots=True)
class _Sorted:
    """The events of one call, sorted out; the counts are per batch. `owners` maps an ordinal to its batch.

    `suspects` are the ordinals of events whose times are not believed.
    """

    accepted_counts: list[int]
    duplicate_counts: list[int]
    dead_counts: list[int]
    unattributed_count: int = 0
    events: list[StagedEvent] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    suspects: list[int] = field(default_factory=list)

    def admit(self, owner: int, payload: bytes, event: StagedEvent) -> None:
        """Stage an event; its ordinal is its place."""
        if event[_TIME_SUSPECT] is not None:
            self.suspects.append(len(self.events))
        self.events.append(event)
        self.owners.append(owner)
        self.payloads.append(payload)
        self.accepted_counts[owner] += 1

    def bury(self, owner: int, letter: DeadLetter) -> None:
        """Make a payload a dead letter."""
        self.letters.append(letter)
        self.dead_counts[owner] += 1


class Ingester:
    """Takes batches in.

    Args:
        db: Where they go.
        clock: What the events' times are compared with.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._known_partitions: set[tuple[str, date]] = set()

    async def apply(self, batches: Sequence[IngestBatch]) -> list[BatchResult]:
        """Take batches in, all in one transaction.

        Args:
            batches: With at most `EVENTS_PER_TRANSACTION_MAX` events together where latency matters.

        Returns:
            What became of each, in the same order.

        Raises:
            DatabaseUnavailable: Nothing was taken in, as far as is known; send all of it again.
        """
        return await self._apply(batches, None)

    async def apply_in(self, tx: Connection, batches: Sequence[IngestBatch]) -> list[BatchResult]:
        """Take batches in as a part of the caller's transaction, which must end with this call's success or not at all.

        Args:
            tx: A transaction of the system role.
            batches: As for `apply`.
        """
        return await self._apply(batches, tx)

    async def _apply(self, batches: Sequence[IngestBatch], within: Connection | None) -> list[BatchResult]:
        now = self._clock.now()
        found = _sort_out(batches, unix_us(now))
        traceparents = [context for context in map(traceparent_of, found.payloads) if context][:TRACES_LINKED_MAX]
        with span("metering.ingest", next(iter(traceparents), None), links=traceparents[1:]):
            if within is not None:
                await self._write(within, batches, found, now)
            else:
                async with self._db.system() as tx:
                    made = await self._write(tx, batches, found, now)
                self._remember(made)
        _count(found)
        return [
            BatchResult(accepted_count=accepted, duplicate_count=duplicate, dead_count=dead)
            for accepted, duplicate, dead in zip(
                found.accepted_counts, found.duplicate_counts, found.dead_counts, strict=True
            )
        ]

    async def offset(self, source: Source) -> int | None:
        """Return the position behind what has been taken in from a source; None where nothing has."""
        async with self._db.system() as tx:
            position = await store.get_position(tx, source)
        return position.next_offset if position else None

    async def move_offset(self, source: Source, offset: int) -> None:
        """Move a source's position, back too: for a source that does not have its position any more."""
        async with self._db.system() as tx:
            await store.move_offset(tx, source, offset, self._clock.now())

    async def _write(
        self, tx: Connection, batches: Sequence[IngestBatch], found: _Sorted, now: datetime
    ) -> set[tuple[str, date]]:
        arrival_week = await store.hold_arrival_week(tx)
        forgotten = await _find_forgotten(tx, batches, found, now) if found.suspects else frozenset()
        await store.put_offsets(tx, _offsets(batches), now)
        made = await self._make_partitions(tx, found.events, arrival_week)
        if found.events:
            await _store_events(tx, batches, found, arrival_week, forgotten)
        if found.letters:
            await store.insert_dead_letters(tx, found.letters, now)
        return made

    async def _make_partitions(
        self, tx: Connection, events: Sequence[StagedEvent], arrival_week: date
    ) -> set[tuple[str, date]]:
        numbers = {week_number_of(event[_START_TIME_US]) for event in events}
        wanted = {(store.EVENTS_TABLE, week_of_number(number)) for number in numbers}
        wanted.add((store.EVENT_IDS_TABLE, arrival_week))
        missing = wanted - self._known_partitions
        for table, week in sorted(missing):
            await store.create_week_partition(tx, table, week)
        return missing

    def _remember(self, partitions: set[tuple[str, date]]) -> None:
        """Note partitions as existing, once the transaction that made them has committed."""
        if len(self._known_partitions) > PARTITIONS_REMEMBERED_MAX:
            self._known_partitions.clear()
        self._known_partitions |= partitions


def unix_us(instant: datetime) -> int:
    """Return an instant as Unix time in microseconds, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


async def _find_forgotten(
    tx: Connection, batches: Sequence[IngestBatch], found: _Sorted, now: datetime
) -> frozenset[int]:
    """Bury events whose ids may have been forgotten since they were taken in; return their ordinals."""
    now_us = unix_us(now)
    old: dict[int, list[int]] = {}
    for ordinal in found.suspects:
        if event_times.is_before_memory(found.events[ordinal][_ID_TIME_US], now_us):
            old.setdefault(found.owners[ordinal], []).append(ordinal)
    forgotten: set[int] = set()
    for owner, ordinals in old.items():
        if await _was_taken_in_long_ago(tx, batches[owner], now):
            forgotten.update(ordinals)
            found.accepted_counts[owner] -= len(ordinals)
            for ordinal in ordinals:
                found.bury(owner, _dead(batches[owner].source, found.payloads[ordinal], _FORGOTTEN))
    return frozenset(forgotten)


async def _was_taken_in_long_ago(tx: Connection, batch: IngestBatch, now: datetime) -> bool:
    if batch.next_offset is None:
        return False
    position = await store.get_position(tx, batch.source)
    if position is None:
        return False
    return position.next_offset >= batch.next_offset and position.update_time < now - event_times.AGE_MAX


async def _store_events(
    tx: Connection,
    batches: Sequence[IngestBatch],
    found: _Sorted,
    arrival_week: date,
    forgotten: frozenset[int],
) -> None:
    week_start = datetime.combine(arrival_week, time.min, UTC)
    oldest_week = week_of(week_start - DEDUPE_WINDOW)
    events = [event for ordinal, event in enumerate(found.events) if ordinal not in forgotten] if forgotten else None
    await store.stage(tx, found.events if events is None else events)
    repeated = await store.store_staged(
        tx,
        arrival_week=arrival_week,
        oldest_week=oldest_week,
        looked_up_before_us=unix_us(week_start + ID_LOOKUP_MARGIN),
    )
    conflicts = await store.find_conflicts(tx, repeated, oldest_week=oldest_week) if repeated else set()
    for ordinal in repeated:
        owner = found.owners[ordinal]
        found.accepted_counts[owner] -= 1
        if ordinal in conflicts:
            payload_hash = found.events[ordinal][_PAYLOAD_HASH]
            found.bury(owner, _conflict(batches[owner].source, found.payloads[ordinal], payload_hash))
        else:
            found.duplicate_counts[owner] += 1


def _sort_out(batches: Sequence[IngestBatch], now_us: int) -> _Sorted:
    """Parse everything; set aside poison, and repetitions inside the call: of the same id the first one counts."""
    size = len(batches)
    found = _Sorted(accepted_counts=[0] * size, duplicate_counts=[0] * size, dead_counts=[0] * size)
    hashes: dict[tuple[object, ...], bytes] = {}
    for owner, batch in enumerate(batches):
        for payload in batch.payloads:
            parsed = parse(payload, len(found.events), now_us)
            if parsed is None:
                found.unattributed_count += 1
            elif isinstance(parsed, Poison):
                found.bury(owner, _dead(batch.source, payload, parsed))
            else:
                payload_hash = parsed[_PAYLOAD_HASH]
                first_hash = hashes.setdefault(parsed[:2], payload_hash)
                if first_hash is payload_hash:
                    found.admit(owner, payload, parsed)
                elif first_hash == payload_hash:
                    found.duplicate_counts[owner] += 1
                else:
                    found.bury(owner, _conflict(batch.source, payload, payload_hash))
    return found


def _offsets(batches: Sequence[IngestBatch]) -> dict[Source, int]:
    offsets: dict[Source, int] = {}
    for batch in batches:
        if batch.next_offset is None:
            continue
        offsets[batch.source] = max(batch.next_offset, offsets.get(batch.source, 0))
    return offsets


def _dead(source: Source, payload: bytes, poison: Poison) -> DeadLetter:
    return DeadLetter(
        source=source, payload=payload, payload_hash=hash_of(payload), reason=poison.reason, detail=poison.detail
    )


def _conflict(source: Source, payload: bytes, payload_hash: bytes) -> DeadLetter:
    return DeadLetter(
        source=source,
        payload=payload,
        payload_hash=payload_hash,
        reason=DeadReason.CONFLICT,
        detail="id: stored before with another payload",
    )


def _count(found: _Sorted) -> None:
    _TRANSACTIONS.inc()
    _EVENTS.labels("accepted").inc(sum(found.accepted_counts))
    _EVENTS.labels("duplicate").inc(sum(found.duplicate_counts))
    _EVENTS.labels("unattributed").inc(found.unattributed_count)
    for reason, count in Tally(
        reason for ordinal in found.suspects for reason in found.events[ordinal][_TIME_SUSPECT].split(",")
    ).items():
        _SUSPECT.labels(reason).inc(count)
    for letter in found.letters:
        _DEAD.labels(letter.reason.value).inc()
