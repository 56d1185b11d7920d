"""Takes usage events from Kafka, on the same path as those that come over gRPC.

Positions live in PostgreSQL, in the transaction of the events. When a partition is assigned to this replica it seeks
there, whatever Kafka's group believes. If a transaction fails the consumer seeks back and tries again after a pause:
nothing is skipped and nothing else is consumed meanwhile. A replica that lost a partition may still commit a batch that
its successor reads too; the ids tell, and a recorded position never goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from contract import topics
from mesh import kafka
from mesh.rpc.errors import RpcError
from services.metering.ingest import EVENTS_PER_TRANSACTION_MAX, Ingester
from services.metering.model import IngestBatch, Source

GROUP_ID: Final = "tollway-metering"
SOURCE_PREFIX: Final = "kafka:"
POLL_TIMEOUT_MS: Final = 500
RETRY_PAUSE_SECONDS: Final = 1.0

_FAILURES: Final = Counter("tollway_metering_consumer_failures_total", "Batches from Kafka that had to be repeated")

log = structlog.get_logger()


def source_of(topic: str, partition: int) -> Source:
    """Return the source that a topic's partition is recorded under."""
    return Source(name=f"{SOURCE_PREFIX}{topic}", partition=partition)


class SeekToStored(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """On assignment, goes to the positions in PostgreSQL.

    Args:
        consumer: Whose partitions.
        ingester: Knows the positions.
    """

    def __init__(self, consumer: kafka.Consumer, ingester: Ingester) -> None:
        self._consumer = consumer
        self._ingester = ingester

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Nothing is held back for a partition, so nothing needs saving."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Seek each partition to its stored position, or to the start where there is none."""
        for partition in sorted(assigned):
            await seek_to_stored(self._consumer, self._ingester, partition)


async def seek_to_stored(consumer: kafka.Consumer, ingester: Ingester, partition: Any) -> None:
    """Seek one partition to its stored position, or to the start where there is none."""
    offset = await ingester.offset(source_of(partition.topic, partition.partition))
    if offset is None:
        await consumer.seek_to_beginning(partition)
    else:
        consumer.seek(partition, offset)
    log.info("partition_assigned", topic=partition.topic, partition=partition.partition, offset=offset)


class UsageConsumer:
    """Consumes the topic of usage events.

    Args:
        bootstrap: The brokers.
        ingester: Takes the events in.
        topic: Where they are.
    """

    def __init__(self, *, bootstrap: str, ingester: Ingester, topic: str = topics.USAGE_EVENTS) -> None:
        self._bootstrap = bootstrap
        self._ingester = ingester
        self._topic = topic

    async def run(self) -> None:
        """Consume until cancelled; connect again where the brokers or PostgreSQL go away."""
        while True:
            try:
                await self._consume()
            except (KafkaError, RpcError, OSError, asyncpg.PostgresError) as error:
                _FAILURES.inc()
                log.warning("consumer_failed", detail=repr(error))
                await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def _consume(self) -> None:
        consumer = await kafka.start_consumer(self._bootstrap, client_id="metering", group_id=GROUP_ID)
        try:
            consumer.subscribe([self._topic], listener=SeekToStored(consumer, self._ingester))
            while True:
                records = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=EVENTS_PER_TRANSACTION_MAX)
                if records:
                    await self._ingester.apply([_batch(partition, of_it) for partition, of_it in records.items()])
        finally:
            await consumer.stop()


def _batch(partition: Any, records: list[Any]) -> IngestBatch:
    return IngestBatch(
        source=source_of(partition.topic, partition.partition),
        next_offset=records[-1].offset + 1,
        # A record without a value (a tombstone) is an unreadable event, not a reason to stop.
        payloads=[record.value or b"\x08" for record in records],
    )
