"""Takes usage events from Kafka, on the same path as those that come over gRPC.

Positions live in PostgreSQL, in the transaction of the events. When a partition is assigned to this replica it seeks
there, whatever Kafka's group believes. If a transaction fails the consumer seeks back and tries again after a pause:
nothing is skipped and nothing else is consumed meanwhile. A replica that lost a partition may still commit a batch that
its successor reads too; the ids tell, and a recorded position never goes back.

**Which topic.** A position belongs to one topic of one cluster, so a source's name carries the cluster's id and the
topic's id. A topic that was made again, or a new cluster, is a new source and is read from its start; what was read
before under another identity is recognised by its ids. The identity is asked for again every `IDENTITY_SECONDS`,
because a topic can be replaced under a running consumer. Rows that older releases wrote under the bare name are not
believed: the topic is read once more, which the ids make harmless as long as the topic keeps its records for less than
`AGE_MAX` (30 days here).

**An offset that is not there** means that records were lost: beyond the end the broker lost some that were read, before
the start it dropped some that nobody had read. Either is logged, counted and shown in health until this process ends,
and then the partition is read from what there is. That cannot count anything twice. The stored position moves to where
reading begins: kept, it would lie inside the partition once that has grown again, and what is below would be skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import KafkaError, NoOffsetForPartitionError
from prometheus_client import Counter

from contract import topics
from mesh import kafka
from mesh.kafka_identity import TopicIdentity
from mesh.rpc.errors import RpcError
from services.metering.ingest import EVENTS_PER_TRANSACTION_MAX, Ingester
from services.metering.model import IngestBatch, Source

GROUP_ID: Final = "tollway-metering"
SOURCE_PREFIX: Final = "kafka:"
POLL_TIMEOUT_MS: Final = 500
RETRY_PAUSE_SECONDS: Final = 1.0
IDENTITY_SECONDS: Final = 5.0
UNSOUGHT_PAUSE_SECONDS: Final = 0.05

_FAILURES: Final = Counter("tollway_metering_consumer_failures_total", "Batches from Kafka that had to be repeated")
_LOST: Final = Counter(
    "tollway_metering_kafka_positions_lost_total",
    "Stored positions that a partition does not have: beyond its end, or before its start",
    ["where"],
)

log = structlog.get_logger()


class TopicReplaced(KafkaError):  # type: ignore[misc]  # aiokafka is untyped
    """Another topic bears the name now."""


class KafkaPositionsLost(Exception):
    """Kafka does not have the records that a stored position speaks of."""


def source_of(identity: TopicIdentity, topic: str, partition: int) -> Source:
    """Return the source that a topic's partition is recorded under."""
    return Source(name=f"{SOURCE_PREFIX}{identity.cluster_id}:{topic}:{identity.topic_id}", partition=partition)


class SeekToStored(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """On assignment, goes to the positions in PostgreSQL.

    Args:
        consumer: Whose partitions.
        ingester: Knows the positions.
        identity: Which topic it is.
        lost: Gets the partitions that do not have their stored position.
    """

    def __init__(self, consumer: kafka.Consumer, ingester: Ingester, identity: TopicIdentity, lost: set[int]) -> None:
        self._consumer = consumer
        self._ingester = ingester
        self._identity = identity
        self._lost = lost
        self.failure: Exception | None = None

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Nothing is held back for a partition, so nothing needs saving."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Seek each partition to its stored position, or to the start where there is none.

        aiokafka only logs what a listener raises and would go on, so a failure is kept for the consumer's loop.
        """
        try:
            for partition in sorted(assigned):
                await self._seek(partition)
        except (KafkaError, RpcError, OSError, asyncpg.PostgresError) as error:
            self.failure = error

    async def _seek(self, partition: Any) -> None:
        source = source_of(self._identity, partition.topic, partition.partition)
        offset = await self._ingester.offset(source)
        start = (await self._consumer.beginning_offsets([partition]))[partition]
        end = (await self._consumer.end_offsets([partition]))[partition]
        if offset is not None and not start <= offset <= end:
            where = "beyond_end" if offset > end else "before_start"
            self._lost.add(partition.partition)
            _LOST.labels(where).inc()
            log.critical(
                "kafka_position_lost",
                source=source.name,
                partition=partition.partition,
                where=where,
                offset=offset,
                start=start,
                end=end,
            )
            await self._ingester.move_offset(source, start)
            offset = start
        self._consumer.seek(partition, start if offset is None else offset)
        log.info("partition_assigned", source=source.name, partition=partition.partition, offset=offset)


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
        self._lost: set[int] = set()

    async def check(self) -> None:
        """Do nothing as long as every partition has had its stored position.

        Raises:
            KafkaPositionsLost: At least one has not.
        """
        if self._lost:
            raise KafkaPositionsLost(f"partitions {sorted(self._lost)}")

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
            identity = await kafka.identify_topic(consumer, self._topic)
            listener = SeekToStored(consumer, self._ingester, identity, self._lost)
            consumer.subscribe([self._topic], listener=listener)
            identified = time.monotonic()
            while True:
                records = await _poll(consumer)
                if listener.failure is not None:
                    raise listener.failure
                if time.monotonic() - identified > IDENTITY_SECONDS:
                    identified = time.monotonic()
                    if await kafka.identify_topic(consumer, self._topic) != identity:
                        raise TopicReplaced(self._topic)
                if records:
                    await self._ingester.apply(
                        [_batch(identity, partition, of_it) for partition, of_it in records.items()]
                    )
        finally:
            await consumer.stop()


async def _poll(consumer: kafka.Consumer) -> Any:
    """Return what has arrived; nothing where a partition is assigned and the listener has not sought it yet."""
    try:
        return await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=EVENTS_PER_TRANSACTION_MAX)
    except NoOffsetForPartitionError:
        await asyncio.sleep(UNSOUGHT_PAUSE_SECONDS)
        return {}


def _batch(identity: TopicIdentity, partition: Any, records: list[Any]) -> IngestBatch:
    return IngestBatch(
        source=source_of(identity, partition.topic, partition.partition),
        next_offset=records[-1].offset + 1,
        # A record without a value (a tombstone) is an unreadable event, not a reason to stop.
        payloads=[record.value or b"\x08" for record in records],
    )
