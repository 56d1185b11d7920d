"""Protobuf bytes for whoever frames a message by hand, taken from the descriptors.

The edge puts constant parts of a message behind what only one request knows, and metering looks for one field without
reading the rest. Both need the bytes in front of a field: its tag (`number << 3 | wire type`, a varint) and, where the
length is fixed, the length. They are computed here once per process, so a field that is renumbered, renamed or given
another type cannot leave bytes of yesterday behind.

Source: the protobuf encoding guide.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

ID_BYTES: Final = 16
TRACEPARENT_BYTES: Final = 55

_VARINT, _LENGTH_DELIMITED = 0, 2
_WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_UINT32: _VARINT,
    FieldDescriptor.TYPE_UINT64: _VARINT,
    FieldDescriptor.TYPE_INT64: _VARINT,
    FieldDescriptor.TYPE_BOOL: _VARINT,
    FieldDescriptor.TYPE_ENUM: _VARINT,
    FieldDescriptor.TYPE_STRING: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH_DELIMITED,
}
_BYTE_MAX: Final = 0x7F
_SMALL: Final = [bytes((value,)) for value in range(_BYTE_MAX + 1)]


def varint(value: int) -> bytes:
    """Return a number that is not negative as a protobuf varint."""
    if value <= _BYTE_MAX:
        return _SMALL[value]
    parts = bytearray()
    while value > _BYTE_MAX:
        parts.append(value & _BYTE_MAX | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def tag(message: Descriptor, field: str) -> bytes:
    """Return the bytes in front of a field's value.

    Raises:
        KeyError: There is no such field, or nobody frames its type by hand.
    """
    descriptor = message.fields_by_name[field]
    return varint(descriptor.number << 3 | _WIRE_TYPES[descriptor.type])


def tag_of_length(message: Descriptor, field: str, length: int) -> bytes:
    """Return the bytes in front of a value of a length that is always the same."""
    return tag(message, field) + varint(length)


DECIDE_BATCH_ID: Final = tag(ratelimit.DecideRequest.DESCRIPTOR, "batch_id")
DECIDE_DECISION: Final = tag(ratelimit.DecideRequest.DESCRIPTOR, "decisions")
DECIDE_GIVE_BACK: Final = tag(ratelimit.DecideRequest.DESCRIPTOR, "give_backs")
DECISION_ID: Final = tag_of_length(ratelimit.Decision.DESCRIPTOR, "request_id", ID_BYTES)
EVENT_ID: Final = tag_of_length(events.UsageEvent.DESCRIPTOR, "id", ID_BYTES)
EVENT_TRACEPARENT: Final = tag_of_length(events.UsageEvent.DESCRIPTOR, "traceparent", TRACEPARENT_BYTES)
