"""What the descriptors say about a field: where it is, what text means for it, what it takes in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_WELL_KNOWN_PREFIX: Final = "google.protobuf."
_BOOLEANS: Final = {"true": True, "false": False}
_WELL_KNOWN: Final = {
    "google.protobuf.Timestamp": "a time as in RFC 3339",
    "google.protobuf.Duration": "a duration such as 1.5s",
    "google.protobuf.FieldMask": "field names separated by commas",
    "google.protobuf.BoolValue": "true or false",
    "google.protobuf.StringValue": "a string",
}
_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_INT32: "a 32-bit integer",
    FieldDescriptor.CPPTYPE_INT64: "a 64-bit integer",
    FieldDescriptor.CPPTYPE_UINT32: "an unsigned 32-bit integer",
    FieldDescriptor.CPPTYPE_UINT64: "an unsigned 64-bit integer",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a string",
}


def is_well_known(descriptor: Descriptor) -> bool:
    """Say whether proto3 JSON has a form of its own for a message."""
    return str(descriptor.full_name).startswith(_WELL_KNOWN_PREFIX)


def message_of(field: FieldDescriptor) -> Descriptor | None:
    """Return the message whose fields can be named one by one; None for lists, maps and well-known types."""
    message = field.message_type
    return None if message is None or field.is_repeated or is_well_known(message) else message


def field_named(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """Find a field by its proto name or its lowerCamelCase name, as proto3 JSON does."""
    found = descriptor.fields_by_name.get(name)
    return found if found is not None else descriptor.fields_by_camelcase_name.get(name)


def fields_along(descriptor: Descriptor, path: str) -> list[FieldDescriptor] | None:
    """Return the fields that a path such as `page.size` goes through, or None where there is no such path."""
    found: list[FieldDescriptor] = []
    inner: Descriptor | None = descriptor
    for name in path.split("."):
        field = field_named(inner, name) if inner is not None else None
        if field is None:
            return None
        found.append(field)
        inner = message_of(field)
    return found


def value_of_text(field: FieldDescriptor, text: str) -> Any:
    """Return what proto3 JSON wants for a value that came as text. Numbers may stay text; these may not."""
    message_name = field.message_type.full_name if field.message_type is not None else ""
    if field.type == FieldDescriptor.TYPE_BOOL or message_name == "google.protobuf.BoolValue":
        return _BOOLEANS.get(text, text)
    if field.type == FieldDescriptor.TYPE_ENUM and _INTEGER.fullmatch(text):
        return int(text)
    return text


def is_enum_number(field: FieldDescriptor, value: Any) -> bool:
    """Say whether a value is no number, or one that an enum can have; a larger one would lose its upper bits."""
    if field.enum_type is None or not isinstance(value, int | float) or isinstance(value, bool):
        return True
    return INT32_MIN <= value <= INT32_MAX


def fits_parameter(field: FieldDescriptor) -> bool:
    """Say whether a field can be given in a query string: scalars, enums, well-known types, and lists of those."""
    return field.message_type is None or is_well_known(field.message_type)


def described(field: FieldDescriptor) -> str:
    """Say in a few words what a field takes."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "an object"
    one = _described_one(field)
    return f"a list, each {one}" if field.is_repeated else one


def _described_one(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return "one of " + ", ".join(_names(field))
    if field.message_type is not None:
        return _WELL_KNOWN.get(str(field.message_type.full_name), "an object")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "bytes in base64"
    return _SCALARS[field.cpp_type]


def _names(field: FieldDescriptor) -> Iterator[str]:
    for value in field.enum_type.values if field.enum_type is not None else ():
        if value.number != 0:
            yield value.name
