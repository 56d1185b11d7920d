"""The consumer with the broker and the store played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from mesh import kafka
from mesh.database.pools import DatabaseUnavailable
from mesh.kafka_identity import TopicIdentity
from services.metering import consumer as module
from services.metering.consumer import KafkaPositionsLost, SeekToStored, UsageConsumer, source_of
from services.metering.model import BatchResult, IngestBatch, Source

PARTITION = TopicPartition("usage-events", 3)
IDENTITY = TopicIdentity(cluster_id="here", topic_id=UUID(int=7))
SOURCE = source_of(IDENTITY, "usage-events", 3)


@dataclass
class Record:
    offset: int
    value: bytes | None


class Broker:
    """What aiokafka would be."""

    def __init__(self, *polls: dict[TopicPartition, list[Record]]) -> None:
        self.polls = list(polls)
        self.sought: list[tuple[TopicPartition, int]] = []
        self.stopped = asyncio.Event()
        self.start, self.end = 5, 100

    def subscribe(self, topics: list[str], listener: object) -> None:
        assert topics == ["usage-events"]
        assert isinstance(listener, SeekToStored)

    async def getmany(self, **_limits: int) -> dict[TopicPartition, list[Record]]:
        if not self.polls:
            await asyncio.Event().wait()
        return self.polls.pop(0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought.append((partition, offset))

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.start)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    async def stop(self) -> None:
        self.stopped.set()


class Store:
    """What the ingester would be."""

    def __init__(self) -> None:
        self.offsets: dict[Source, int] = {}
        self.applied: list[IngestBatch] = []
        self.failures = 0

    async def offset(self, source: Source) -> int | None:
        return self.offsets.get(source)

    async def move_offset(self, source: Source, offset: int) -> None:
        self.offsets[source] = offset

    async def apply(self, batches: Sequence[IngestBatch]) -> list[BatchResult]:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable
        self.applied += batches
        return []


async def test_on_assignment_it_goes_where_postgresql_says() -> None:
    broker, store = Broker(), Store()
    other = TopicPartition("usage-events", 4)
    store.offsets[SOURCE] = 42
    listener = SeekToStored(broker, store, IDENTITY, set())  # type: ignore[arg-type]
    await listener.on_partitions_revoked([PARTITION])
    await listener.on_partitions_assigned([other, PARTITION])
    assert broker.sought == [(PARTITION, 42), (other, 5)]


@pytest.mark.parametrize("identity", [replace(IDENTITY, cluster_id="there"), replace(IDENTITY, topic_id=UUID(int=8))])
async def test_a_topic_made_again_and_a_new_cluster_are_read_from_their_start(identity: TopicIdentity) -> None:
    broker, store = Broker(), Store()
    store.offsets[SOURCE] = 42
    store.offsets[Source(name="kafka:usage-events", partition=3)] = 43
    listener = SeekToStored(broker, store, identity, set())  # type: ignore[arg-type]
    await listener.on_partitions_assigned([PARTITION])
    assert broker.sought == [(PARTITION, 5)]


@pytest.mark.parametrize("stored", [101, 4])
async def test_a_position_that_the_partition_does_not_have_is_an_alarm_and_never_a_silent_seek(stored: int) -> None:
    broker, store = Broker(), Store()
    store.offsets[SOURCE] = stored
    consumer = UsageConsumer(bootstrap="x", ingester=store)  # type: ignore[arg-type]
    await consumer.check()
    listener = SeekToStored(broker, store, IDENTITY, consumer._lost)  # type: ignore[arg-type]
    with capture_logs() as logs:
        await listener.on_partitions_assigned([PARTITION])
    alarm = logs[0]
    assert (alarm["event"], alarm["log_level"], alarm["offset"]) == ("kafka_position_lost", "critical", stored)
    with pytest.raises(KafkaPositionsLost, match="3"):
        await consumer.check()
    assert broker.sought == [(PARTITION, 5)]
    # Another assignment finds nothing wrong; that records were lost stays true.
    await listener.on_partitions_revoked([PARTITION])
    await listener.on_partitions_assigned([PARTITION])
    with pytest.raises(KafkaPositionsLost, match="3"):
        await consumer.check()


async def test_after_a_lost_position_nothing_that_comes_below_it_is_skipped() -> None:
    broker, store = Broker(), Store()
    store.offsets[SOURCE] = 150
    listener = SeekToStored(broker, store, IDENTITY, set())  # type: ignore[arg-type]
    await listener.on_partitions_assigned([PARTITION])
    # The partition grows beyond the position that was lost before the consumer is assigned to it again.
    broker.end = 200
    await listener.on_partitions_assigned([PARTITION])
    assert [offset for _, offset in broker.sought] == [5, 5]


async def test_a_topic_that_is_replaced_under_the_consumer_starts_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers, store = [Broker({}, {}), Broker({PARTITION: [Record(0, b"a")]})], Store()
    started: list[Any] = []
    second = replace(IDENTITY, topic_id=UUID(int=8))
    identities = [IDENTITY, second, second]

    async def start_consumer(_bootstrap: str, **_names: str) -> Any:
        started.append(brokers[len(started)])
        return started[-1]

    async def identify_topic(_consumer: object, _topic: str) -> TopicIdentity:
        return identities.pop(0) if identities else second

    monkeypatch.setattr(kafka, "start_consumer", start_consumer)
    monkeypatch.setattr(kafka, "identify_topic", identify_topic)
    monkeypatch.setattr(module, "RETRY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "IDENTITY_SECONDS", -1.0)
    running = asyncio.create_task(UsageConsumer(bootstrap="x", ingester=store).run())  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while not store.applied:
            await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert [each.source for each in store.applied] == [source_of(second, "usage-events", 3)]


async def test_records_become_batches_and_a_failure_starts_over_from_the_stored_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polled = {PARTITION: [Record(7, b"a"), Record(9, None)]}
    brokers, store = [Broker(dict(polled)), Broker(dict(polled))], Store()
    started: list[Any] = []

    async def start_consumer(_bootstrap: str, **_names: str) -> Any:
        started.append(brokers[len(started)])
        return started[-1]

    async def identify_topic(_consumer: object, _topic: str) -> TopicIdentity:
        return IDENTITY

    monkeypatch.setattr(kafka, "start_consumer", start_consumer)
    monkeypatch.setattr(kafka, "identify_topic", identify_topic)
    monkeypatch.setattr(module, "RETRY_PAUSE_SECONDS", 0.0)
    store.failures = 1
    running = asyncio.create_task(UsageConsumer(bootstrap="x", ingester=store).run())  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while not store.applied:
            await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert brokers[0].stopped.is_set()
    assert brokers[1].stopped.is_set()
    (batch,) = store.applied
    assert (batch.source, batch.next_offset, batch.payloads[0]) == (SOURCE, 10, b"a")
    assert len(batch.payloads) == 2
