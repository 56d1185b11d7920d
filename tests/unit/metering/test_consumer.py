"""The consumer with the broker and the store played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition

from mesh import kafka
from mesh.database.pools import DatabaseUnavailable
from services.metering import consumer as module
from services.metering.consumer import SeekToStored, UsageConsumer, source_of
from services.metering.model import BatchResult, IngestBatch, Source

PARTITION = TopicPartition("usage-events", 3)


@dataclass
class Record:
    offset: int
    value: bytes | None


class Broker:
    """What aiokafka would be."""

    def __init__(self, *polls: dict[TopicPartition, list[Record]]) -> None:
        self.polls = list(polls)
        self.sought: list[tuple[TopicPartition, int | None]] = []
        self.stopped = asyncio.Event()

    def subscribe(self, topics: list[str], listener: object) -> None:
        assert topics == ["usage-events"]
        assert isinstance(listener, SeekToStored)

    async def getmany(self, **_limits: int) -> dict[TopicPartition, list[Record]]:
        if not self.polls:
            await asyncio.Event().wait()
        return self.polls.pop(0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought.append((partition, offset))

    async def seek_to_beginning(self, partition: TopicPartition) -> None:
        self.sought.append((partition, None))

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

    async def apply(self, batches: Sequence[IngestBatch]) -> list[BatchResult]:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable
        self.applied += batches
        return []


async def test_on_assignment_it_goes_where_postgresql_says() -> None:
    broker, store = Broker(), Store()
    other = TopicPartition("usage-events", 4)
    store.offsets[source_of("usage-events", 3)] = 42
    listener = SeekToStored(broker, store)  # type: ignore[arg-type]
    await listener.on_partitions_revoked([PARTITION])
    await listener.on_partitions_assigned([other, PARTITION])
    assert broker.sought == [(PARTITION, 42), (other, None)]


async def test_records_become_batches_and_a_failure_starts_over_from_the_stored_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polled = {PARTITION: [Record(7, b"a"), Record(9, None)]}
    brokers, store = [Broker(dict(polled)), Broker(dict(polled))], Store()
    started: list[Any] = []

    async def start_consumer(_bootstrap: str, **_names: str) -> Any:
        started.append(brokers[len(started)])
        return started[-1]

    monkeypatch.setattr(kafka, "start_consumer", start_consumer)
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
    assert (batch.source, batch.next_offset, batch.payloads[0]) == (source_of("usage-events", 3), 10, b"a")
    assert len(batch.payloads) == 2
