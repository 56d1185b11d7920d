from __future__ import annotations

import asyncio
from typing import ClassVar
from uuid import UUID

import pytest
from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasError
from tollway.events.v1 import usage_event_pb2 as events

from contract import topics
from edge_proxy.usage.journal.reader import Batch
from edge_proxy.usage.sink.base import SinkUnavailable
from edge_proxy.usage.sink.kafka import KafkaSink


class Producer:
    """Stands in for aiokafka's producer: acknowledges on flush."""

    made: ClassVar[list[Producer]] = []
    refuse: Exception | None = None
    unreachable = False

    def __init__(self, **options: object) -> None:
        self.options = options
        self.sent: list[dict] = []
        self.waiting: list[asyncio.Future] = []
        self.stopped = False
        Producer.made.append(self)

    async def start(self) -> None:
        if Producer.unreachable:
            raise KafkaConnectionError

    async def stop(self) -> None:
        self.stopped = True

    async def send(self, topic: str, **message: object) -> asyncio.Future:
        self.sent.append({"topic": topic, **message})
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def flush(self) -> None:
        for future in self.waiting:
            future.set_exception(Producer.refuse) if Producer.refuse else future.set_result(None)
        self.waiting.clear()


@pytest.fixture(autouse=True)
def producer(monkeypatch):
    Producer.made, Producer.refuse, Producer.unreachable = [], None, False
    monkeypatch.setattr("mesh.kafka.AIOKafkaProducer", Producer)
    return Producer


def batch(*payloads: bytes) -> Batch:
    return Batch(journal_id=UUID(int=1), next_position=1, payloads=list(payloads))


async def test_events_are_keyed_by_organization_and_acknowledged_by_all_replicas(producer):
    event = events.UsageEvent(id=b"i" * 16, organization_id=b"o" * 16).SerializeToString()
    sink = KafkaSink("k:9092")
    await sink.send(batch(event, b"\xff"))
    (made,) = producer.made
    assert made.options["enable_idempotence"] is True
    assert (made.options["acks"], made.options["compression_type"]) == ("all", "snappy")
    assert made.sent == [
        {"topic": topics.USAGE_EVENTS, "value": event, "key": b"o" * 16, "headers": [topics.SCHEMA_HEADER]},
        {"topic": topics.USAGE_EVENTS, "value": b"\xff", "key": None, "headers": [topics.SCHEMA_HEADER]},
    ]
    await sink.close()
    assert made.stopped


async def test_refused_batch_is_not_committed(producer):
    producer.refuse = NotEnoughReplicasError()
    sink = KafkaSink("k:9092")
    with pytest.raises(SinkUnavailable):
        await sink.send(batch(b"a", b"b"))
    assert not sink.is_available
    producer.refuse = None
    await sink.send(batch(b"a", b"b"))
    assert sink.is_available


async def test_unreachable_broker_is_tried_again_with_a_new_producer(producer):
    producer.unreachable = True
    sink = KafkaSink("k:9092")
    with pytest.raises(SinkUnavailable):
        await sink.send(batch(b"a"))
    producer.unreachable = False
    await sink.send(batch(b"a"))
    assert [made.stopped for made in producer.made] == [True, False]
