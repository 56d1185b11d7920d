"""The OpenAPI 3.1 document, made from the same routes that are served, so that it cannot say anything else.

Comments are not part of descriptors at run time; an operation is named by its RPC, whose page in the contract says
what it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiohttp import web
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from graphql_gateway.entrance.http import ROUTE
from graphql_gateway.rest.fields import is_well_known
from graphql_gateway.rest.routes import Route

Json = dict[str, Any]

VERSION: Final = "3.1.0"
PATH: Final = "/api/v1/openapi.json"
_PARAMETER_DEPTH_MAX: Final = 4
_INT64: Final = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_WELL_KNOWN: Final[dict[str, Json]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object"},
    "google.protobuf.BoolValue": {"type": "boolean"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BytesValue": {"type": "string", "contentEncoding": "base64"},
    "google.protobuf.Int32Value": {"type": "integer", "format": "int32"},
    "google.protobuf.UInt32Value": {"type": "integer", "format": "uint32"},
    "google.protobuf.Int64Value": _INT64,
    "google.protobuf.UInt64Value": _INT64,
    "google.protobuf.DoubleValue": {"type": "number"},
    "google.protobuf.FloatValue": {"type": "number"},
}
_SCALARS: Final[dict[int, Json]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT64: _INT64,
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_ERROR: Final[Json] = {
    "type": "object",
    "required": ["success", "error"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "string", "description": "The reason, UPPER_SNAKE."},
                "message": {"type": "string"},
                "details": {"type": "object"},
            },
        },
    },
}


class OpenApiView:
    """Answers the document; it is made once."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._document = openapi(routes)

    async def get(self, request: web.Request) -> web.Response:
        """Answer the document."""
        request[ROUTE] = PATH
        return web.json_response(self._document)


def openapi(routes: Iterable[Route]) -> Json:
    """Return the document for some routes."""
    schemas: Json = {"Error": _ERROR}
    paths: Json = {}
    for route in routes:
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": VERSION,
        "info": {"title": "Tollway", "version": "v1"},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(route: Route) -> str:
    """Return the template without the patterns inside its braces, which OpenAPI does not know."""
    text = route.template.text
    while "=" in text:
        head, _, rest = text.partition("=")
        text = head + rest[rest.index("}") :]
    return text


def _operation(route: Route, schemas: Json) -> Json:
    method = route.rpc.descriptor
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": method.full_name,
        "tags": [method.containing_service.name],
        "parameters": [_path_parameter(name) for name in route.template.fields] + _query_parameters(route, schemas),
        "responses": {
            "200": {"description": "It worked.", "content": _json(_envelope(route, schemas))},
            "default": {"description": "It did not.", "content": _json(_reference("Error"))},
        },
    }
    if "idempotency_key" in method.input_type.fields_by_name:
        operation["parameters"].append({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}})
    if route.body:
        operation["requestBody"] = {"content": _json(_body_schema(route, schemas))}
    operation["security"] = [] if route.rpc.anyone else [{"bearer": []}]
    return operation


def _operation_id(route: Route) -> str:
    """Return the RPC's name; further bindings of it are told apart by their place among its bindings."""
    method = route.rpc.descriptor
    number = f"_{route.binding + 1}" if route.binding else ""
    return f"{method.containing_service.name}_{method.name}{number}"


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(route: Route, schemas: Json) -> list[Json]:
    if route.body == "*":
        return []
    bound = {*route.template.fields, route.body, "idempotency_key"}
    return list(_parameters_of(route.rpc.descriptor.input_type, "", bound, schemas, depth=1))


def _parameters_of(
    descriptor: Descriptor, prefix: str, bound: set[str], schemas: Json, *, depth: int
) -> Iterable[Json]:
    for field in descriptor.fields:
        name = f"{prefix}{field.name}"
        if name in bound:
            continue
        message = field.message_type
        if message is None or is_well_known(message):
            yield {"name": name, "in": "query", "schema": _field_schema(field, schemas)}
        elif not field.is_repeated and depth < _PARAMETER_DEPTH_MAX:
            yield from _parameters_of(message, f"{name}.", bound, schemas, depth=depth + 1)


def _envelope(route: Route, schemas: Json) -> Json:
    output = route.rpc.descriptor.output_type
    data = (
        _field_schema(output.fields_by_name[route.response_body], schemas)
        if route.response_body
        else _message_schema(output, schemas)
    )
    return {
        "type": "object",
        "required": ["success", "message", "data"],
        "properties": {"success": {"const": True}, "message": {"type": "string"}, "data": data},
    }


def _body_schema(route: Route, schemas: Json) -> Json:
    request = route.rpc.descriptor.input_type
    if route.body != "*":
        return _field_schema(request.fields_by_name[route.body], schemas)
    free = [field for field in request.fields if field.name not in route.template.fields]
    return {"type": "object", "properties": {field.name: _field_schema(field, schemas) for field in free}}


def _field_schema(field: FieldDescriptor, schemas: Json) -> Json:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _one(value, schemas)}
    one = _one(field, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: FieldDescriptor, schemas: Json) -> Json:
    if field.message_type is not None:
        return _message_schema(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return _SCALARS[field.cpp_type]


def _message_schema(descriptor: Descriptor, schemas: Json) -> Json:
    if is_well_known(descriptor):
        return _WELL_KNOWN.get(str(descriptor.full_name), {})
    name = str(descriptor.full_name)
    if name not in schemas:
        # Set before its fields are read: a message may contain itself.
        schema: Json = {"type": "object"}
        schemas[name] = schema
        schema["properties"] = {field.name: _field_schema(field, schemas) for field in descriptor.fields}
    return _reference(name)
