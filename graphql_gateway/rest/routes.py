"""The table of REST routes, built from service descriptors; nobody writes a route down anywhere else."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tollway
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from graphql_gateway.rest.template import PathTemplate, compile_template
from graphql_gateway.rpc.calls import Rpc, generic_rpc

_SERVICE_MODULE_SUFFIX: Final = "_service_pb2"
_METHODS: Final = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One HTTP method and path that one RPC answers.

    Attributes:
        method: Upper case.
        template: The path.
        rpc: Who answers.
        body: The request field that the body is, `*` for all fields that the path does not bind, or empty.
        binding: 0 for an RPC's rule, 1 and up for its additional bindings.
        response_body: The response field that is answered, or empty for all of it.
    """

    method: str
    template: PathTemplate
    rpc: Rpc[Any, Any]
    body: str
    response_body: str
    binding: int


def services() -> list[ServiceDescriptor]:
    """Return every service below `tollway`, by name: all generated `*_service_pb2` modules are imported."""
    # `pkgutil` does not look into folders without an `__init__.py`, which generated packages are. Such a package has as
    # many paths as the import path leads to it, and the same module may lie on several.
    names = {
        ".".join((tollway.__name__, *path.relative_to(root).with_suffix("").parts))
        for root in map(Path, tollway.__path__)
        for path in root.rglob(f"*{_SERVICE_MODULE_SUFFIX}.py")
    }
    found = [each for name in names for each in importlib.import_module(name).DESCRIPTOR.services_by_name.values()]
    return sorted(found, key=lambda service: str(service.full_name))


def build_routes(described: Iterable[ServiceDescriptor]) -> list[Route]:
    """Return the routes of all unary RPCs that have an HTTP rule, most specific first.

    Raises:
        ValueError: A rule is wrong, or two RPCs claim the same method and path.
    """
    routes = [route for service in described for method in service.methods for route in _routes_of(method)]
    routes.sort(key=lambda r: (-r.template.has_verb, -r.template.literal_segments, r.template.text))
    claimed: dict[tuple[str, str], Route] = {}
    for route in routes:
        other = claimed.setdefault((route.method, route.template.pattern.pattern), route)
        if other is not route:
            raise ValueError(f"{route.rpc.path} and {other.rpc.path} both claim {route.method} {route.template.text}")
    return routes


def words_of(routes: Iterable[Route]) -> frozenset[str]:
    """Return every fixed segment of the routes: what a path can say without telling anything about anybody."""
    segments = {segment for route in routes for segment in route.template.text.split("/")}
    return frozenset(segment for segment in segments if "{" not in segment and "*" not in segment)


def _routes_of(method: MethodDescriptor) -> Iterator[Route]:
    if method.client_streaming or method.server_streaming:
        return
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule = options.Extensions[annotations_pb2.http]
    rpc = generic_rpc(method)
    for number, binding in enumerate((rule, *rule.additional_bindings)):
        yield _route(binding, rpc, number)


def _route(rule: http_pb2.HttpRule, rpc: Rpc[Any, Any], number: int) -> Route:
    kind = rule.WhichOneof("pattern")
    if kind not in _METHODS:
        raise ValueError(f"{rpc.path} has an HTTP rule without a method")
    template = compile_template(getattr(rule, kind))
    for path in template.fields:
        _check_field(rpc, path)
    for name in (rule.body,) if rule.body not in {"", "*"} else ():
        _check_field(rpc, name)
    return Route(
        method=kind.upper(),
        template=template,
        rpc=rpc,
        body=rule.body,
        response_body=rule.response_body,
        binding=number,
    )


def _check_field(rpc: Rpc[Any, Any], path: str) -> None:
    descriptor: Descriptor | None = rpc.descriptor.input_type
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name) if descriptor is not None else None
        if field is None:
            raise ValueError(f"{rpc.path} has no request field {path}")
        descriptor = field.message_type
