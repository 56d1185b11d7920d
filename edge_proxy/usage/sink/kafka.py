"""Sends events to Kafka: idempotent producer, acks=all, keyed by organization.

A batch counts as committed when every event of it was acknowledged by all in-sync replicas. The producer keeps the
order within a partition and does not write twice on its own retries; what is sent again after a restart is a duplicate
that `metering` counts once.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from aiokafka.errors import KafkaError
from google.protobuf.message import DecodeError
from tollway.events.v1 import usage_event_pb2 as events

from contract import topics
from edge_proxy.usage.journal.reader import Batch
from edge_proxy.usage.sink.base import SinkUnavailable
from mesh.kafka import Producer, start_producer

ANSWER_SECONDS: Final = 30.0

log = structlog.get_logger()


class KafkaSink:
    """A topic as a sink.

    Args:
        bootstrap: `host:port[,host:port…]`.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: Producer = None
        self._start_lock = asyncio.Lock()
        self.is_available = True
        # Who reads the topic finds them; the broker does not tell.
        self.dead_events = 0

    async def send(self, batch: Batch) -> None:
        """Produce every event of a batch and wait for all acknowledgements."""
        try:
            producer = await self._started()
            async with asyncio.timeout(ANSWER_SECONDS):
                sent = [
                    await producer.send(
                        topics.USAGE_EVENTS, value=payload, key=_key(payload), headers=[topics.SCHEMA_HEADER]
                    )
                    for payload in batch.payloads
                ]
                # Whole batches go out without waiting for the linger: more only comes after this one is committed.
                await producer.flush()
                await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            if self.is_available:
                log.warning("kafka_unavailable", error=str(error) or type(error).__name__)
            self.is_available = False
            raise SinkUnavailable from None
        self.is_available = True

    async def close(self) -> None:
        """Stop the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _started(self) -> Producer:
        async with self._start_lock:
            if self._producer is None:
                self._producer = await start_producer(self._bootstrap, client_id="edge_proxy")
            return self._producer


def _key(payload: bytes) -> bytes | None:
    """Return the organization: usage of one customer stays in order and on one consumer."""
    try:
        return events.UsageEvent.FromString(payload).organization_id or None
    except DecodeError:
        return None
