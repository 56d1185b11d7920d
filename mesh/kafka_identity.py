"""Asks Kafka which cluster it is and which topic bears a name at the moment: a name alone is not an identity.

A topic that was deleted and made again, or a cluster that was replaced, begins at offset 0 under the same name. Its
topic id (KIP-516), or the cluster's id, is another one then. aiokafka speaks Metadata up to version 5, which has no
topic ids, so version 10 of that request, the first that has them, is written out here with aiokafka's own types (Kafka
protocol guide, "Metadata API"). A broker that does not speak it gets aiokafka's own request, and the topic id is
`NO_TOPIC_ID`: its topics are told apart by the cluster alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

NO_TOPIC_ID: Final = UUID(int=0)
_METADATA_KEY: Final = 3
_METADATA_VERSION: Final = 10
_UUID_BYTES: Final = 16
_NO_ERROR: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicIdentity:
    """Which topic of which cluster a name stands for."""

    cluster_id: str
    topic_id: UUID


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka is untyped
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(_UUID_BYTES))


_BROKER: Final = (
    ("node_id", Int32),
    ("host", CompactString("utf-8")),
    ("port", Int32),
    ("rack", CompactString("utf-8")),
    ("tags", TaggedFields),
)
_PARTITION: Final = (
    ("error_code", Int16),
    ("partition_index", Int32),
    ("leader_id", Int32),
    ("leader_epoch", Int32),
    ("replica_nodes", CompactArray(Int32)),
    ("isr_nodes", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)
_TOPIC: Final = (
    ("error_code", Int16),
    ("name", CompactString("utf-8")),
    ("topic_id", _Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(*_PARTITION)),
    ("topic_authorized_operations", Int32),
    ("tags", TaggedFields),
)


class _MetadataResponseV10(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = _METADATA_KEY
    API_VERSION = _METADATA_VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(*_BROKER)),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        ("topics", CompactArray(*_TOPIC)),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    FLEXIBLE_VERSION = True
    API_KEY = _METADATA_KEY
    API_VERSION = _METADATA_VERSION
    RESPONSE_TYPE = _MetadataResponseV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicRequest(Request[_MetadataRequestV10]):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = _METADATA_KEY

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(NO_TOPIC_ID, self._topic, {})], False, False, False, {})


async def identify(client: Any, topic: str) -> TopicIdentity:
    """Return which topic a name stands for now.

    Args:
        client: A started aiokafka client.
        topic: The name.

    Raises:
        KafkaError: No broker answers, or there is no such topic.
    """
    node_id = client.get_random_node()
    try:
        answer = await client.send(node_id, _TopicRequest(topic))
    except NotImplementedError:
        answer = await client.send(node_id, MetadataRequest([topic], allow_auto_topic_creation=False))
        return TopicIdentity(cluster_id=str(answer.cluster_id), topic_id=NO_TOPIC_ID)
    ((error_code, _name, topic_id, *_),) = answer.topics
    if error_code != _NO_ERROR:
        error: KafkaError = for_code(error_code)(topic)
        raise error
    return TopicIdentity(cluster_id=str(answer.cluster_id), topic_id=topic_id)
