"""Requests that nobody means, made from what the gateway says of itself: its OpenAPI document and its schema.

Each value is either one that fits what is described or one that has broken a program somewhere: text that is no number,
numbers that no field can hold, characters that no database has, dates beyond the calendar, another type altogether.
The strategies are Hypothesis'; a failing request shrinks to the shortest one that fails.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from graphql import GraphQLEnumType, GraphQLList, GraphQLNonNull, GraphQLSchema, get_named_type
from hypothesis import strategies as st

NUMBERS = ["0", "-0", "-1", "--1", "+1", "1.0", "1e400", "NaN", "0x1", "٣", str(2**31), str(2**32 + 2), str(2**63)]
TIMES = [
    "2026-02-30T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999999-23:59",
    "10000-01-01T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01",
]
TEXTS = ["", " ", "\0", "a\0b", "\n", "\r\n", "%", "%00", "'", '"', "\\", "../..", "null", "true", "[]", "{}", "\u202e"]
HALVES = ["\ud800", "a\udfff"]
LONG = ["9" * 5_000, "a" * 5_000, "é" * 2_000]
IDS = [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)), "{" + str(uuid.UUID(int=1)) + "}", "urn:uuid:x", "0" * 31]

DEPTH_MAX = 4
FITTING_OF_ALL = 4
"""So many values that fit for each that does not: a request with several wrong ones ends at the first."""
_TIMES = st.datetimes().map(lambda time: time.isoformat() + "Z")
_SCALARS = {
    ("integer", "int32"): st.integers(-(2**31), 2**31 - 1),
    ("integer", "uint32"): st.integers(0, 2**32 - 1),
    ("number", None): st.floats(allow_nan=False, allow_infinity=False),
    ("boolean", None): st.booleans(),
    ("string", "date-time"): _TIMES,
    ("string", "int64"): st.integers(-(2**63), 2**63 - 1).map(str),
}
_INPUTS = {"Int": st.integers(-(2**31), 2**31 - 1), "DateTime": _TIMES, "Boolean": st.booleans()}

nasty_text = st.one_of(
    st.sampled_from(TEXTS + NUMBERS + TIMES + LONG + IDS), st.text(max_size=40), st.from_regex(r"\A[A-Z_]{1,30}\Z")
)
nasty_json = st.recursive(
    st.one_of(
        nasty_text,
        st.sampled_from(HALVES),
        st.sampled_from([None, True, False, 2**32 + 2, -(2**31) - 1, 2**63, 10**4_000, 1.5, 1e308]),
        st.integers(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def rest_requests(document: Mapping[str, Any], known: Mapping[str, str]) -> st.SearchStrategy[Request]:
    """Requests for the operations of an OpenAPI document.

    Args:
        document: The document.
        known: Values that mean something, by parameter name, for example an organization's id.
    """
    operations = [
        (path, method, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in sorted(methods.items())
    ]
    return st.sampled_from(operations).flatmap(lambda one: _rest_request(document, known, one))


@st.composite
def _rest_request(
    draw: Callable[..., Any],
    document: Mapping[str, Any],
    known: Mapping[str, str],
    described: tuple[str, str, Mapping[str, Any]],
) -> Request:
    path, method, operation = described
    query: list[str] = []
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        fitting = st.just(known[name]) if name in known else _fitting(document, parameter["schema"]).map(_as_text)
        value = st.one_of(*[fitting] * FITTING_OF_ALL, nasty_text)
        if parameter["in"] == "path":
            path = path.replace("{" + name + "}", quote(draw(value).encode(), safe="") or "%20")
        elif parameter["in"] == "query":
            query += [
                f"{name}={quote(draw(value).encode(), safe='')}"
                for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2])))
            ]
    if not draw(st.integers(0, 9)):
        query.append(quote(draw(nasty_text).encode(), safe="=&"))
    body = headers = None
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        body, headers = draw(_bodies(document, content["schema"])), {"Content-Type": "application/json"}
    key = draw(st.sampled_from([None] * 8 + ["k", "", "é", "x" * 500]))
    more = {"Idempotency-Key": key} if key is not None else {}
    target = path + ("?" + "&".join(query) if query else "")
    return Request(method=method.upper(), target=target, headers={**(headers or {}), **more}, body=body)


@st.composite
def _bodies(draw: Callable[..., Any], document: Mapping[str, Any], schema: Mapping[str, Any]) -> bytes:
    value = draw(st.one_of(_fitting(document, schema), _fitting(document, schema), nasty_json))
    if isinstance(value, dict) and value and draw(st.booleans()):
        value = {**value, draw(st.sampled_from(sorted(value))): draw(nasty_json)}
    text = json.dumps(value)
    if not draw(st.integers(0, 9)):
        text = text[: draw(st.integers(0, len(text)))] + draw(st.sampled_from(["", "]", "}", "\\u00", "\0"]))
    return text.encode()


def _fitting(document: Mapping[str, Any], schema: Mapping[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that a schema describes."""
    if "$ref" in schema:
        return _fitting(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "array":
        return st.lists(_fitting(document, schema.get("items", {}), depth + 1), max_size=3)
    if schema.get("type") == "object":
        members = schema.get("properties", {}) if depth < DEPTH_MAX else {}
        return st.fixed_dictionaries({}, optional={n: _fitting(document, one, depth + 1) for n, one in members.items()})
    return _SCALARS.get((schema.get("type"), schema.get("format")), st.text(max_size=20))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def graphql_bodies(schema: GraphQLSchema, known: Mapping[str, str]) -> st.SearchStrategy[bytes]:
    """Bodies of requests for the root fields of a schema, with inputs as variables and as literals.

    Args:
        schema: The schema.
        known: Values that mean something, by argument name.
    """
    roots = [("query", schema.query_type), ("mutation", schema.mutation_type)]
    fields = [(kind, name, one) for kind, root in roots if root for name, one in sorted(root.fields.items())]
    return st.sampled_from(fields).flatmap(lambda one: _graphql_body(known, *one))


@st.composite
def _graphql_body(draw: Callable[..., Any], known: Mapping[str, str], kind: str, name: str, root: Any) -> bytes:
    variables: dict[str, Any] = {}
    declared, given = [], []
    for argument, described in root.args.items():
        needed = isinstance(described.type, GraphQLNonNull)
        if not needed and draw(st.booleans()):
            continue
        fitting = st.just(known[argument]) if argument in known else _fitting_input(described.type)
        if draw(st.integers(0, 2)):
            variables[argument] = draw(st.one_of(*[fitting] * FITTING_OF_ALL, nasty_json))
            declared.append(f"${argument}: {described.type}")
            given.append(f"{argument}: ${argument}")
        else:
            given.append(f"{argument}: {_literal(draw(st.one_of(*[fitting] * FITTING_OF_ALL, nasty_json)))}")
    head = f"{kind}({', '.join(declared)})" if declared else kind
    arguments = f"({', '.join(given)})" if given else ""
    below = "{ __typename }" if hasattr(get_named_type(root.type), "fields") else ""
    body = {"query": f"{head} {{ {name}{arguments} {below} }}", "variables": variables}
    if not draw(st.integers(0, 9)):
        body[draw(st.sampled_from(["query", "variables", "operationName", "extensions"]))] = draw(nasty_json)
    return json.dumps(body).encode()


def _fitting_input(of: Any) -> st.SearchStrategy[Any]:
    if isinstance(of, GraphQLNonNull):
        return _fitting_input(of.of_type)
    if isinstance(of, GraphQLList):
        return st.lists(_fitting_input(of.of_type), max_size=3)
    if isinstance(of, GraphQLEnumType):
        return st.sampled_from(sorted(of.values))
    return _INPUTS.get(of.name, st.one_of(st.sampled_from(IDS), st.text(max_size=20)))


def _literal(value: Any) -> str:
    """Writes a value as GraphQL does: members have no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name or 'x'}: {_literal(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value)
