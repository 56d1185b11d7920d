"""Request messages out of path, query and body; answers out of response messages. All of it proto3 JSON.

Reading is quick where the request is right: one `ParseDict`. Only where that refuses is the request read again field
by field, to name every wrong field at once instead of the first one in a library's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from graphql_gateway.failure import Failure
from graphql_gateway.rest.fields import (
    described,
    field_named,
    fields_along,
    fits_parameter,
    is_enum_number,
    message_of,
    value_of_text,
)
from graphql_gateway.rest.routes import Route
from mesh.rpc.errors import InvalidFields, RpcError, Violations

Json = dict[str, Any]

QUERY_PARAMETERS_MAX: Final = 100
_IDEMPOTENCY_KEY: Final = "idempotency_key"


def to_message(
    route: Route, *, path: Mapping[str, str], query: Iterable[tuple[str, str]], body: Json | None, idempotency_key: str
) -> Message:
    """Put a request together.

    Args:
        route: Whose request.
        path: Values that the path binds, by field path.
        query: Parameters in order, repeated where a field is.
        body: The JSON body, if one was sent.
        idempotency_key: Of the header, or empty.

    Raises:
        Failure: INVALID_FIELDS, with every wrong field.
    """
    draft = _Draft(route.rpc.descriptor.input_type)
    if body is not None:
        draft.put_body(route.body, body)
    for name, values in draft.grouped(query).items():
        draft.put_parameter(name, values, allowed=route.body != "*")
    for name, text in path.items():
        draft.put_given(name, text, "is given by the path")
    if idempotency_key and _IDEMPOTENCY_KEY in route.rpc.descriptor.input_type.fields_by_name:
        draft.put_given(_IDEMPOTENCY_KEY, idempotency_key, "is given by the Idempotency-Key header")
    return draft.parse(route.rpc.request())


def from_message(message: Message, response_body: str = "") -> Any:
    """Return a response as JSON values: proto field names, every field present, int64 as strings."""
    data = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return data.get(response_body) if response_body else data


class _Draft:
    """A request in the making: its JSON, and what is wrong with it so far."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._data: Json = {}
        self._violations = Violations()

    def put_body(self, field: str, body: Json) -> None:
        """Take the body as one field, as all fields (`*`), or refuse it where the route takes none."""
        if not field:
            self._violations.add("body", "this address takes no body")
        elif field == "*":
            self._data = self._with_proto_names(body)
        else:
            self._data[field] = body

    def grouped(self, query: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """Return the values of each parameter; of endless queries only the start, and a violation."""
        grouped: dict[str, list[str]] = {}
        for count, (name, value) in enumerate(query):
            if count >= QUERY_PARAMETERS_MAX:
                self._violations.add("query", f"has more than {QUERY_PARAMETERS_MAX} parameters")
                break
            grouped.setdefault(name, []).append(value)
        return grouped

    def put_parameter(self, name: str, values: list[str], *, allowed: bool) -> None:
        """Take a query parameter."""
        along = fields_along(self._descriptor, name) if allowed else None
        if along is None:
            self._violations.add(name, "there is no such parameter")
            return
        field = along[-1]
        read = [value_of_text(field, value) for value in values]
        if not fits_parameter(field):
            self._violations.add(name, "cannot be given as a parameter")
        elif field.is_repeated:
            self._set(along, read)
        elif len(read) > 1:
            self._violations.add(name, "is given more than once")
        else:
            self._set(along, read[0])

    def put_given(self, name: str, text: str, why_not: str) -> None:
        """Take a value of the path or a header; saying it again elsewhere is allowed only if it is the same."""
        along = fields_along(self._descriptor, name) or []
        present: Any = self._data
        for field in along:
            present = present.get(field.name) if isinstance(present, dict) else None
        if present is not None and present != text:
            self._violations.add(name, why_not)
        else:
            self._set(along, value_of_text(along[-1], text))

    def parse(self, into: Message) -> Message:
        """Return the message.

        Raises:
            Failure: INVALID_FIELDS.
        """
        self._check_enums(self._descriptor, self._data, "")
        self._raise_if_any()
        try:
            return json_format.ParseDict(self._data, into)
        except (json_format.ParseError, ValueError, OverflowError):
            self._explain(self._descriptor, self._data, "")
            self._raise_if_any()
            # Each field is right on its own, so they contradict each other: two of one `oneof`.
            raise Failure.of(InvalidFields()) from None

    def _with_proto_names(self, body: Json) -> Json:
        """Rename lowerCamelCase keys of the top level, so that a field has one name from here on."""
        by_json_name = {field.json_name: field.name for field in self._descriptor.fields}
        return {by_json_name.get(key, key): value for key, value in body.items()}

    def _set(self, along: list[FieldDescriptor], value: Any) -> None:
        data = self._data
        for field in along[:-1]:
            inner = data.setdefault(field.name, {})
            if not isinstance(inner, dict):
                self._violations.add(field.name, f"must be {described(field)}")
                return
            data = inner
        data[along[-1].name] = value

    def _check_enums(self, descriptor: Descriptor, data: Json, prefix: str) -> None:
        """Note enum numbers of more than 32 bits: the library takes them and keeps the lower half."""
        for name, value in data.items():
            field = field_named(descriptor, name)
            if field is None:
                continue
            inner = message_of(field)
            if inner is not None and isinstance(value, dict):
                self._check_enums(inner, value, f"{prefix}{name}.")
            elif not all(is_enum_number(field, one) for one in (value if isinstance(value, list) else (value,))):
                self._violations.add(f"{prefix}{name}", f"must be {described(field)}")

    def _explain(self, descriptor: Descriptor, data: Json, prefix: str) -> None:
        """Note every field of `data` that its message does not take."""
        for name, value in data.items():
            field = field_named(descriptor, name)
            if field is None:
                self._violations.add(f"{prefix}{name}", "there is no such field")
                continue
            inner = message_of(field)
            if inner is not None and isinstance(value, dict):
                self._explain(inner, value, f"{prefix}{name}.")
            elif not _accepts(descriptor, name, value):
                self._violations.add(f"{prefix}{name}", f"must be {described(field)}")

    def _raise_if_any(self) -> None:
        try:
            self._violations.raise_if_any()
        except RpcError as error:
            raise Failure.of(error) from None


def _accepts(descriptor: Descriptor, name: str, value: Any) -> bool:
    try:
        json_format.ParseDict({name: value}, GetMessageClass(descriptor)())
    except (json_format.ParseError, ValueError, OverflowError):
        return False
    return True
