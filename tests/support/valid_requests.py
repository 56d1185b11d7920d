"""Requests that mean something, made from descriptors: every field holds what its name and type ask for.

A field's name says what it holds in every RPC of the contract (`expire_time`, `currency_code`, …), so an RPC that is
written later gets a request that its handler takes without a line here. What only the database knows is given: the ids
of things that exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.ids import RandomIds
from tests.support.accounts import PASSWORD

DEPTH_MAX = 3
_DAY_SECONDS = 86_400
# What a message says of a thing that exists and what changes it: the rest of the resource is the server's to fill in.
_FROM_THE_SERVER = ("create_time", "revoke_time", "last_use_time", "delete_time", "replaced_by_id", "suspend_reason")
_EMPTY = ("page_token", "filter", "name_contains", "second_factor_code", "external_id", "hint", "give_backs")
_TEXTS = {
    "currency_code": "EUR",
    "time_zone": "Europe/Paris",
    "password": PASSWORD,
    "current_password": PASSWORD,
    "new_password": "another horse battery staple",
    "plan_id": "starter",
    "allowed_ips": "192.0.2.0/24",
    "scopes": "orders:read",
    "key_prefix": "acme_",
    "template": "api_key_created",
    "code": "123456",
    "dead_letter_id": f"{'0' * 32}-conflict",
    "token": "x" * 43,
    "refresh_token": "x" * 43,
    "action": "thing.change",
    "address": "192.0.2.1",
}
# Of the template above.
_MAPS = {"parameters": dict.fromkeys(("create_time", "hint", "key_name", "organization_name"), "a text")}
_GRID_SECONDS = 15 * 60

_numbers = itertools.count(1)


def valid(descriptor: Descriptor, known: Mapping[str, Any], depth: int = 0) -> Message:
    """Returns a message whose every field has a value.

    Args:
        descriptor: Of the message.
        known: Values by field name in the singular: ids of what exists, for example, as text also where the field is
            of bytes.
        depth: How deep inside of a request the message stands.
    """
    message: Any = message_factory.GetMessageClass(descriptor)()
    has_id = any(field.name.endswith("_id") for field in descriptor.fields)
    for field in descriptor.fields:
        name = field.name
        if name == "token" and has_id:
            # Where a thing can be named by its id or by a token, a request that names it by both contradicts itself.
            continue
        given = known.get(name, known.get(name.removesuffix("s")))
        if given is not None:
            is_id = field.type == FieldDescriptor.TYPE_BYTES and isinstance(given, str)
            _put(message, field, UUID(given).bytes if is_id else given)
        elif name in _EMPTY or (depth and name in _FROM_THE_SERVER) or depth > DEPTH_MAX:
            continue
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, name).update(_MAPS.get(name, {"key": "value"}))
        else:
            _put(message, field, _value(field, known, depth))
    return message


def _put(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor, known: Mapping[str, Any], depth: int) -> Any:
    if field.message_type is not None:
        return _message(field, known, depth)
    if field.enum_type is not None:
        return min(number for number in field.enum_type.values_by_number if number)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _text(field.name)
        case FieldDescriptor.TYPE_BYTES:
            return RandomIds().uuid7().bytes * (2 if field.name in {"digests", "sha256"} else 1)
        case FieldDescriptor.TYPE_BOOL:
            return False
        case _:
            return 10


def _message(field: FieldDescriptor, known: Mapping[str, Any], depth: int) -> Message:
    match field.message_type.full_name:
        case Timestamp.DESCRIPTOR.full_name:
            return _time(field.name)
        case Duration.DESCRIPTOR.full_name:
            return Duration(seconds=3_600)
        case FieldMask.DESCRIPTOR.full_name:
            return FieldMask(paths=["name"])
        case Struct.DESCRIPTOR.full_name:
            filled = Struct()
            filled["key"] = "value"
            return filled
        case _:
            return valid(field.message_type, known, depth + 1)


def _time(name: str) -> Timestamp:
    """Returns an instant on the grid of usage."""
    seconds = int(datetime.now(UTC).timestamp()) // _GRID_SECONDS * _GRID_SECONDS
    days = {"expire_time": 1, "start_time": -1}.get(name, 0)
    return Timestamp(seconds=seconds + days * _DAY_SECONDS)


def _text(name: str) -> str:
    text = _TEXTS.get(name, _TEXTS.get(name.removesuffix("s")))
    if text is not None:
        return text
    if name.endswith(("_id", "_ids")) or name == "idempotency_key":
        return str(RandomIds().uuid7())
    if "email" in name or name == "recipient":
        return f"somebody{next(_numbers)}@valid.example"
    return f"a {name} {next(_numbers)}".replace("_", " ")
