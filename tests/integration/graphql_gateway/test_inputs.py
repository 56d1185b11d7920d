"""Inputs that no field can hold: each is refused with its field, and none is a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yarl

from tests.integration.graphql_gateway.conftest import ACME, KEYS, Backend, RunningGateway

KEYS_PATH = f"/api/v1/organizations/{ACME}/api-keys"
USAGE_PATH = f"/api/v1/organizations/{ACME}/usage"
LONG_NUMBER = "9" * 5_000


def violations(body: dict[str, Any]) -> set[str]:
    return {violation["field"] for violation in body["error"]["details"].get("violations", ())}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{USAGE_PATH}?granularity=--1", "granularity"),
        (f"{USAGE_PATH}?granularity=-", "granularity"),
        (f"{USAGE_PATH}?granularity={2**32 + 2}", "granularity"),
        (f"{USAGE_PATH}?granularity={LONG_NUMBER}", "granularity"),
        (f"{USAGE_PATH}?group_by={2**32 + 1}", "group_by"),
        (f"{USAGE_PATH}?start_time=10000-01-01T00:00:00Z", "start_time"),
        (f"{USAGE_PATH}?start_time=0000-01-01T00:00:00Z", "start_time"),
        (f"{USAGE_PATH}?start_time={LONG_NUMBER}", "start_time"),
        (f"{KEYS_PATH}?page_size={LONG_NUMBER}", "page_size"),
        (f"{KEYS_PATH}?page_size={2**32 + 1}", "page_size"),
        (f"{KEYS_PATH}?page_size=1e400", "page_size"),
        (f"{KEYS_PATH}?page_size=NaN", "page_size"),
        (f"{KEYS_PATH}?page_token=a%00b", "page_token"),
        ("/api/v1/organizations/a%00b", "organization_id"),
    ],
)
async def test_a_parameter_that_no_field_can_hold_is_named(
    gateway: RunningGateway, backend: Backend, path: str, field: str
) -> None:
    status, body, _ = await gateway.rest("GET", path, token=backend.token())
    assert (status, body["error"]["code"], violations(body)) == (400, "INVALID_FIELDS", {field}), body
    assert backend.seen.calls == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ('{"name": "a\\u0000b"}', {"name"}),
        ('{"name": "\\ud800"}', {"name"}),
        ('{"name": "k", "scopes": ["a", "\\udfff"]}', {"scopes[1]"}),
        ('{"na\\u0000me": "k"}', {"body"}),
        (f'{{"name": {LONG_NUMBER}}}', {"name"}),
        (f'{{"mode": {2**32 + 2}}}', {"mode"}),
        (f'{{"mode": {LONG_NUMBER}}}', {"mode"}),
        ('{"mode": 1e400}', {"mode"}),
        ('{"expire_time": "9999-12-31T23:59:59-23:59"}', {"expire_time"}),
        ('{"expire_time": 5, "scopes": {}, "name": []}', {"expire_time", "scopes", "name"}),
    ],
)
async def test_a_body_that_no_field_can_hold_names_its_fields(
    gateway: RunningGateway, backend: Backend, body: str, fields: set[str]
) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await gateway.rest("POST", KEYS_PATH, token=backend.token(), data=body, headers=headers)
    assert (status, answer["error"]["code"], violations(answer)) == (400, "INVALID_FIELDS", fields), answer
    assert backend.seen.calls == []


@pytest.mark.parametrize(
    "path", ["/%0A", "/api/v1/plans%0A", "/api/v1/%0D%0Ax", "/%00", "/%FF", "/api/v1//plans", "/%"]
)
async def test_a_path_that_leads_nowhere_is_not_found(gateway: RunningGateway, path: str) -> None:
    target = yarl.URL(gateway.url + path, encoded=True)
    async with gateway.session.get(target) as response:
        body = await response.json(content_type=None)
        assert (response.status, body["error"]["code"]) == (404, "ROUTE_NOT_FOUND")


async def test_an_organization_with_a_line_feed_is_no_organization(gateway: RunningGateway, backend: Backend) -> None:
    status, body, _ = await gateway.rest("GET", "/api/v1/organizations/%0A", token=backend.token())
    assert (status, violations(body)) == (400, {"organization_id"})


CREATE = "mutation ($name: String!, $scopes: [String!]) { createApiKey(name: $name, scopes: $scopes) { secret } }"


@pytest.mark.parametrize(
    ("query", "variables", "fields"),
    [
        (CREATE, '{"name": "a\\u0000"}', {"variables.name"}),
        (CREATE, '{"name": "k", "scopes": ["\\ud800"]}', {"variables.scopes[0]"}),
        ('mutation { createApiKey(name: "a\\u0000") { secret } }', "{}", {"name"}),
        ('{ auditEntries(after: "Oi1h") { pageInfo { hasNextPage } } }', "{}", {"after"}),
        (f'{{ node(id: "{KEYS[0]}\\u0000") {{ id }} }}', "{}", set()),
        (f"{{ apiKeys(first: {LONG_NUMBER}) {{ pageInfo {{ hasNextPage }} }} }}", "{}", {"first"}),
        (f"{{ apiKeys(first: [{{a: -{LONG_NUMBER}.5}}]) {{ pageInfo {{ hasNextPage }} }} }}", "{}", {"first"}),
        (f"query ($n: Int = {LONG_NUMBER}) {{ apiKeys(first: $n) {{ pageInfo {{ hasNextPage }} }} }}", "{}", {"n"}),
        (f"{{ viewer @skip(if: {LONG_NUMBER}) {{ kind }} }}", "{}", {"if"}),
        ("query ($n: Int) { apiKeys(first: $n) { pageInfo { hasNextPage } } }", f'{{"n": {LONG_NUMBER}}}', set()),
        (
            '{ usage(start: "0001-01-01T00:00:00+23:00", end: "9999-12-31T23:59:59-23:00") { start } }',
            "{}",
            set(),
        ),
    ],
)
async def test_a_graphql_input_that_no_field_can_hold_is_no_fault_of_ours(
    gateway: RunningGateway, backend: Backend, query: str, variables: str, fields: set[str]
) -> None:
    body = f'{{"query": {json.dumps(query)}, "variables": {variables}}}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {backend.token()}"}
    async with gateway.session.post(f"{gateway.url}/graphql", data=body, headers=headers) as response:
        answer = await response.json()
    told = answer["errors"][0]["extensions"]
    assert told["status"] in {"INVALID_ARGUMENT", "NOT_FOUND"}, answer
    assert {violation["field"] for violation in told.get("violations", ())} == fields, answer
    assert backend.seen.calls == []


async def test_half_a_surrogate_pair_in_a_document_is_named(gateway: RunningGateway) -> None:
    headers = {"Content-Type": "application/json"}
    body = '{"query": "{ viewer { \\ud800 } }"}'
    async with gateway.session.post(f"{gateway.url}/graphql", data=body, headers=headers) as response:
        told = (await response.json())["errors"][0]["extensions"]
    assert told["violations"][0]["field"] == "query"


async def test_an_expectation_that_cannot_be_met_is_answered_in_our_words(gateway: RunningGateway) -> None:
    async with gateway.session.get(f"{gateway.url}/api/v1/plans", headers={"Expect": "hunter2"}) as response:
        text = await response.text()
        assert (response.status, response.headers["Server"]) == (417, "tollway")
    assert json.loads(text)["error"]["code"] == "EXPECTATION_FAILED"
    assert "hunter2" not in text
