"""The gateway offers what the contract makes public, in the form that is kept in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tollway
from graphql import build_schema as parse_schema
from tollway.options.v1 import access_pb2

from graphql_gateway.graph.rpcs import FIELDS
from graphql_gateway.graph.schema import schema_text
from graphql_gateway.rest.routes import build_routes, services
from graphql_gateway.rpc.calls import access_of

ROOT = Path(__file__).parents[3]
PUBLIC_CALLERS = {access_pb2.CALLER_PERSON, access_pb2.CALLER_SERVICE_ACCOUNT, access_pb2.CALLER_ANYONE}
EXCEPTION = re.compile(r"^\| `(tollway\.[\w.]+)` \| (gRPC|gRPC, REST) \| (.+) \|$", re.MULTILINE)


def public_rpcs() -> set[str]:
    return {
        method.full_name
        for service in services()
        for method in service.methods
        if PUBLIC_CALLERS.intersection(access_of(method).callers)
    }


def exceptions() -> list[tuple[str, str, str]]:
    return EXCEPTION.findall((ROOT / "docs" / "internal-rpcs.md").read_text())


def test_every_service_of_the_contract_is_found() -> None:
    names = {service.full_name for service in services()}
    written = {
        f"{package}.{name}"
        for path in (ROOT / "proto" / "tollway").rglob("*.proto")
        for package in re.findall(r"^package (\S+);", path.read_text(), re.MULTILINE)
        for name in re.findall(r"^service (\w+)", path.read_text(), re.MULTILINE)
    }
    assert names == written


def test_every_public_rpc_is_in_graphql_or_is_an_exception_with_a_reason() -> None:
    offered = {rpc.descriptor.full_name for rpc in FIELDS.values()}
    assert public_rpcs() - offered == {rpc for rpc, _, _ in exceptions()}


def test_every_public_rpc_is_in_rest_or_is_an_exception_with_a_reason() -> None:
    offered = {route.rpc.descriptor.full_name for route in build_routes(services())}
    assert public_rpcs() - offered == {rpc for rpc, where, _ in exceptions() if "REST" not in where}
    assert all(len(reason) > 20 for _, _, reason in exceptions())


def test_nothing_is_offered_that_is_not_public() -> None:
    offered = {route.rpc.descriptor.full_name for route in build_routes(services())}
    assert offered <= public_rpcs()


@pytest.mark.parametrize("path", FIELDS)
def test_the_field_that_offers_an_rpc_exists(path: str) -> None:
    type_name, _, field = path.partition(".")
    schema = parse_schema(schema_text())
    assert field in schema.type_map[type_name].fields  # type: ignore[attr-defined]


def test_the_schema_in_the_repository_is_the_one_that_is_served() -> None:
    kept = (ROOT / "graphql_gateway" / "schema.graphql").read_text()
    assert kept == schema_text(), "run python -m graphql_gateway.graph.schema > graphql_gateway/schema.graphql"


def test_a_service_that_lies_on_the_import_path_twice_is_served_once(monkeypatch):
    monkeypatch.setattr(tollway, "__path__", [*tollway.__path__, *tollway.__path__])
    names = [service.full_name for service in services()]
    assert len(names) == len(set(names))
