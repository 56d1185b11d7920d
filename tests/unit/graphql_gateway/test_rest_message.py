"""Requests out of path, query and body, for a service that is registered while the tests run."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from graphql_gateway.failure import Failure
from graphql_gateway.rest.message import QUERY_PARAMETERS_MAX, from_message, to_message
from graphql_gateway.rest.openapi import openapi
from graphql_gateway.rest.routes import Route, build_routes, services
from tests.support.widgets import widget_service

ROUTES = build_routes([widget_service()])
WIDGET = GetMessageClass(widget_service().file.message_types_by_name["Widget"])


def route(method: str, suffix: str) -> Route:
    (found,) = (r for r in ROUTES if r.method == method and r.template.text.endswith(suffix))
    return found


GET, PUT, PAINT = route("GET", "/v1/widgets/{widget_id}"), route("PUT", "}"), route("POST", ":paint")


def read(
    wanted: Route,
    path: dict[str, str],
    *,
    query: list[tuple[str, str]] | None = None,
    body: dict[str, Any] | None = None,
    key: str = "",
) -> Message:
    return to_message(wanted, path=path, query=query or [], body=body, idempotency_key=key)


def wrong(*arguments: Any, **named: Any) -> dict[str, str]:
    with pytest.raises(Failure) as caught:
        read(*arguments, **named)
    assert caught.value.reason == "INVALID_FIELDS"
    return {violation.field: violation.description for violation in caught.value.violations}


def test_every_binding_of_every_unary_rpc_is_a_route_and_nothing_else() -> None:
    assert sorted((r.method, r.template.text, r.rpc.descriptor.name) for r in ROUTES) == [
        ("DELETE", "/api/v1/widgets/{widget_id}", "DeleteWidget"),
        ("GET", "/api/v1/shelves/{filter.shelf}/widgets/{widget_id}", "GetWidget"),
        ("GET", "/api/v1/widgets/latest", "GetLatestWidget"),
        ("GET", "/api/v1/widgets/{widget_id}", "GetWidget"),
        ("PATCH", "/api/v1/widgets/{widget.widget_id}", "UpdateWidget"),
        ("POST", "/api/v1/widgets/{widget_id}:paint", "PaintWidget"),
        ("PUT", "/api/v1/widgets/{widget.widget_id}", "PutWidget"),
    ]


def test_of_two_templates_that_match_the_more_literal_one_comes_first() -> None:
    matching = [r for r in ROUTES if r.method == "GET" and r.template.match("/api/v1/widgets/latest") is not None]
    assert [r.rpc.descriptor.name for r in matching] == ["GetLatestWidget", "GetWidget"]


def test_one_path_claimed_twice_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="both claim"):
        build_routes([widget_service(), widget_service()])


def test_query_parameters_are_read_nested_repeated_and_typed() -> None:
    query = [
        ("filter.color", "COLOR_RED"),
        ("filter.colors", "COLOR_BLUE"),
        ("filter.colors", "1"),
        ("filter.made_after_time", "2026-01-01T00:00:00Z"),
        ("filter.broken", "true"),
        ("filter.glossy", "false"),
        ("filter.size.width_mm", "12"),
        ("pageSize", "5"),
    ]
    request = read(GET, {"widget_id": "a/b"}, query=query)
    assert json_format.MessageToDict(request, preserving_proto_field_name=True) == {
        "widget_id": "a/b",
        "page_size": 5,
        "filter": {
            "color": "COLOR_RED",
            "colors": ["COLOR_BLUE", "COLOR_RED"],
            "made_after_time": "2026-01-01T00:00:00Z",
            "broken": True,
            "glossy": False,
            "size": {"width_mm": 12},
        },
    }


def test_every_wrong_parameter_is_named_at_once() -> None:
    query = [
        ("page_size", "many"),
        ("filter.color", "COLOR_PLAID"),
        ("filter.broken", "perhaps"),
        ("filter.made_after_time", "yesterday"),
    ]
    assert wrong(GET, {"widget_id": "7"}, query=query) == {
        "page_size": "must be a 32-bit integer",
        "filter.color": "must be one of COLOR_RED, COLOR_BLUE",
        "filter.broken": "must be true or false",
        "filter.made_after_time": "must be a time as in RFC 3339",
    }


def test_parameters_that_are_none_are_named_at_once() -> None:
    query = [
        ("colour", "x"),
        ("filter", "x"),
        ("filter.sizes", "x"),
        ("filter.size.depth", "1"),
        ("page_size", "1"),
        ("page_size", "2"),
    ]
    assert wrong(GET, {"widget_id": "7"}, query=query) == {
        "colour": "there is no such parameter",
        "filter": "cannot be given as a parameter",
        "filter.sizes": "cannot be given as a parameter",
        "filter.size.depth": "there is no such parameter",
        "page_size": "is given more than once",
    }


def test_a_query_is_not_read_for_ever() -> None:
    query = [("filter.colors", "1")] * (QUERY_PARAMETERS_MAX + 1)
    assert wrong(GET, {"widget_id": "7"}, query=query) == {"query": "has more than 100 parameters"}


def test_what_the_path_says_cannot_be_said_otherwise() -> None:
    assert wrong(GET, {"widget_id": "7"}, query=[("widget_id", "8")]) == {"widget_id": "is given by the path"}
    assert wrong(PUT, {"widget.widget_id": "7"}, body={"widget_id": "8"}) == {
        "widget.widget_id": "is given by the path"
    }
    same: Any = read(PUT, {"widget.widget_id": "7"}, body={"widget_id": "7"})
    assert same.widget.widget_id == "7"


def test_a_body_of_one_field_leaves_the_others_to_the_query() -> None:
    request: Any = read(
        PUT,
        {"widget.widget_id": "7"},
        body={"weightGrams": "12", "notes": {"a": "b"}},
        query=[("update_mask", "weightGrams,notes"), ("validate_only", "true")],
    )
    assert request.widget.weight_grams == 12
    assert list(request.update_mask.paths) == ["weight_grams", "notes"]
    assert request.validate_only


def test_a_body_of_all_fields_leaves_nothing_to_the_query() -> None:
    assert wrong(PAINT, {"widget_id": "7"}, body={"color": "COLOR_RED"}, query=[("color", "COLOR_RED")]) == {
        "color": "there is no such parameter"
    }


def test_a_body_where_none_is_taken_is_refused() -> None:
    assert wrong(GET, {"widget_id": "7"}, body={}) == {"body": "this address takes no body"}


def test_every_wrong_field_of_a_body_is_named_at_once() -> None:
    body = {
        "size": {"width_mm": -1, "deep": 1},
        "labels": [1],
        "stamp": "a",
        "notes": [],
        "weight_grams": 1.5,
        "unknown": None,
        "parts": [{"color": "COLOR_PLAID"}],
    }
    found = wrong(PUT, {"widget.widget_id": "7"}, body=body)
    assert found == {
        "widget.size.width_mm": "must be an unsigned 32-bit integer",
        "widget.size.deep": "there is no such field",
        "widget.labels": "must be a list, each a string",
        "widget.stamp": "must be bytes in base64",
        "widget.notes": "must be an object",
        "widget.weight_grams": "must be a 64-bit integer",
        "widget.unknown": "there is no such field",
        "widget.parts": "must be a list, each an object",
    }


def test_two_of_one_choice_are_refused_although_each_is_right() -> None:
    assert wrong(PUT, {"widget.widget_id": "7"}, body={"battery": "AA", "volts": 12}) == {}


def test_a_parent_that_is_no_object_is_named() -> None:
    assert wrong(
        route("GET", "/shelves/{filter.shelf}/widgets/{widget_id}"),
        {"filter.shelf": "1", "widget_id": "7"},
        query=[("filter.size", "x")],
    ) == {"filter.size": "cannot be given as a parameter"}


def test_the_idempotency_key_of_the_header_fills_the_field() -> None:
    request: Any = read(PAINT, {"widget_id": "7"}, body={}, key="k-1")
    assert request.idempotency_key == "k-1"
    assert read(PUT, {"widget.widget_id": "7"}, key="k-1") == read(PUT, {"widget.widget_id": "7"})
    assert wrong(PAINT, {"widget_id": "7"}, body={"idempotency_key": "k-2"}, key="k-1") == {
        "idempotency_key": "is given by the Idempotency-Key header"
    }


def test_answers_show_every_field_in_snake_case() -> None:
    shown = from_message(WIDGET(widget_id="7", weight_grams=2**62))
    assert shown["weight_grams"] == str(2**62)
    assert shown["labels"] == []
    assert shown["color"] == "COLOR_UNSPECIFIED"
    assert "size" not in shown


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WIDGETS = st.fixed_dictionaries(
    {},
    optional={
        "color": st.sampled_from(["COLOR_RED", "COLOR_BLUE"]),
        "weight_grams": st.integers(-(2**63), 2**63 - 1).map(str),
        "labels": st.lists(TEXT, max_size=3),
        "notes": st.dictionaries(TEXT, TEXT, max_size=3),
        "size": st.fixed_dictionaries({"width_mm": st.integers(0, 2**32 - 1), "height_mm": st.just(3)}),
        "stamp": st.binary(max_size=9).map(lambda value: base64.b64encode(value).decode()),
        "volts": st.integers(-(2**31), 2**31 - 1),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
    },
)


@given(WIDGETS)
def test_what_goes_in_as_json_comes_out_as_json(body: dict[str, Any]) -> None:
    request: Any = read(PUT, {"widget.widget_id": "7"}, body=json.loads(json.dumps(body)))
    shown = from_message(request.widget)
    expected = {**from_message(WIDGET(widget_id="7")), **body}
    assert {name: shown.get(name) for name in expected} == expected


def test_the_document_describes_what_is_served() -> None:
    document = openapi(build_routes([*services(), widget_service()]))
    assert document["openapi"].startswith("3.1")
    paint = document["paths"]["/api/v1/widgets/{widget_id}:paint"]["post"]
    assert set(paint["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {
        "color",
        "idempotency_key",
    }
    found = document["paths"]["/api/v1/shelves/{filter.shelf}/widgets/{widget_id}"]["get"]
    names = {parameter["name"]: parameter["in"] for parameter in found["parameters"]}
    assert names["filter.shelf"] == "path"
    assert names["filter.size.width_mm"] == "query"
    assert "filter.sizes" not in names
    widget = document["components"]["schemas"]["tollway.widgets.v1.Widget"]["properties"]
    assert widget["parts"]["items"] == {"$ref": "#/components/schemas/tollway.widgets.v1.Widget"}
    assert widget["notes"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert document["paths"]["/api/v1/sessions"]["post"]["security"] == []
    assert document["paths"]["/api/v1/organizations/{organization_id}/usage"]["get"]["security"] == [{"bearer": []}]


def test_every_reference_of_the_document_leads_somewhere_and_operation_ids_are_unique() -> None:
    document = openapi(build_routes([*services(), widget_service()]))
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
