"""Kafka as Tollway uses it: one way to produce, one way to consume, both bounded.

The producer is idempotent, waits for all in-sync replicas and compresses with snappy. The consumer never commits
offsets to Kafka: whoever consumes stores positions with what it made of the records, in one transaction, and seeks to
them whenever a partition is assigned to it. The group only spreads partitions over replicas.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mesh.kafka_identity import TopicIdentity, identify

# About a hundred usage events, or half a second, whichever comes first.
BATCH_BYTES_MAX: Final = 32 * 1024
REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
LINGER_MS: Final = 500
REQUEST_TIMEOUT_MS: Final = 10_000
SESSION_TIMEOUT_MS: Final = 10_000
# A transaction that takes longer than this loses its partitions to another replica, which dedupes what it repeats.
POLL_INTERVAL_MS_MAX: Final = 120_000
FETCH_BYTES_MAX: Final = 8 * 1024 * 1024
FETCH_PARTITION_BYTES_MAX: Final = 2 * 1024 * 1024

Producer: TypeAlias = Any
"""An aiokafka producer; aiokafka is untyped."""
Consumer: TypeAlias = Any
"""An aiokafka consumer."""


async def start_producer(bootstrap: str, *, client_id: str) -> Producer:
    """Connect a producer: idempotent, acks=all, snappy.

    Args:
        bootstrap: `host:port`, several with commas.
        client_id: The process, for the broker's logs.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        enable_idempotence=True,
        acks="all",
        compression_type="snappy",
        linger_ms=LINGER_MS,
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=REQUEST_BYTES_MAX,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    return await _started(producer)


async def start_consumer(bootstrap: str, *, client_id: str, group_id: str) -> Consumer:
    """Connect a consumer that is subscribed to nothing yet and commits nothing.

    Args:
        bootstrap: `host:port`, several with commas.
        client_id: The process, for the broker's logs.
        group_id: Replicas with the same group share the partitions.

    Raises:
        aiokafka.errors.KafkaError: No broker answers.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        group_id=group_id,
        enable_auto_commit=False,
        # Whoever consumes says where to begin; an offset that is not there is an error and never a silent seek.
        auto_offset_reset="none",
        isolation_level="read_committed",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
        fetch_max_bytes=FETCH_BYTES_MAX,
        max_partition_fetch_bytes=FETCH_PARTITION_BYTES_MAX,
    )
    return await _started(consumer)


async def identify_topic(consumer: Consumer, topic: str) -> TopicIdentity:
    """Return which topic of which cluster a name stands for at the moment.

    Raises:
        aiokafka.errors.KafkaError: No broker answers, or there is no such topic.
    """
    # aiokafka's consumer has no method that sends a request of one's own.
    return await identify(consumer._client, topic)  # noqa: SLF001


async def _started(client: Any) -> Any:
    try:
        await client.start()
    except BaseException:
        # A client that failed to start still owns sockets and tasks.
        await client.stop()
        raise
    return client
