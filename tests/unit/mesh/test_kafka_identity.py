from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from uuid import UUID

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

from mesh import kafka_identity
from mesh.kafka_identity import NO_TOPIC_ID, TopicIdentity, identify

TOPIC_ID = UUID("1bbc452a-0ccd-4341-b7d8-1c9addeb768a")


class Client:
    """A started client whose broker speaks Metadata up to a version."""

    def __init__(self, version_max: int, error_code: int = 0) -> None:
        self.version_max = version_max
        self.error_code = error_code

    def get_random_node(self) -> int:
        return 1

    async def send(self, _node_id: int, request) -> object:
        struct = request.prepare({3: (0, self.version_max)})
        if struct.API_VERSION < 10:
            return SimpleNamespace(cluster_id="old")
        partition = (0, 0, 1, 7, [1], [1], [], {})
        topic = (self.error_code, "usage-events", TOPIC_ID, False, [partition], 0, {})
        answer = struct.RESPONSE_TYPE(0, [(1, "host", 9092, None, {})], "here", 1, [topic], 0, {})
        assert b"usage-events" in struct.encode()
        return struct.RESPONSE_TYPE.decode(BytesIO(answer.encode()))


async def test_a_topic_is_told_by_its_id_and_its_cluster() -> None:
    assert await identify(Client(13), "usage-events") == TopicIdentity(cluster_id="here", topic_id=TOPIC_ID)


async def test_an_older_broker_is_told_by_its_cluster_alone() -> None:
    assert await identify(Client(9), "usage-events") == TopicIdentity(cluster_id="old", topic_id=NO_TOPIC_ID)


async def test_a_missing_topic_is_an_error() -> None:
    with pytest.raises(UnknownTopicOrPartitionError):
        await identify(Client(13, error_code=3), "usage-events")


def test_the_request_is_framed_as_the_protocol_guide_says() -> None:
    struct = kafka_identity._TopicRequest("ab").prepare({3: (0, 12)})
    one_topic = b"\x02" + bytes(16) + b"\x03ab" + b"\x00"
    assert struct.encode() == one_topic + b"\x00\x00\x00" + b"\x00"
