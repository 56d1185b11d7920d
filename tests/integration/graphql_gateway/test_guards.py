"""What stands in front of the operations: limits, HTTP's rules, headers, and services that are away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import grpc.aio
import pytest
from google.api import annotations_pb2
from graphql import get_introspection_query
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contract.services import SERVICES
from graphql_gateway.entrance import http
from graphql_gateway.entrance.http import HSTS, SECURITY_HEADERS
from graphql_gateway.graph import view
from graphql_gateway.graph.rpcs import FIELDS
from graphql_gateway.rpc.calls import generic_rpc
from mesh import observability
from mesh.clock import ManualClock
from tests.integration.graphql_gateway.conftest import (
    ACME,
    OTHER,
    PASSWORD,
    REFRESH_TOKEN,
    Backend,
    RunningGateway,
    StartGateway,
)
from tests.support.machine_tokens import machine_token

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESPONSE_TYPE = "application/graphql-response+json"


def code(answer: dict[str, Any]) -> str:
    assert "data" not in answer
    return str(answer["errors"][0]["extensions"]["code"])


async def test_attacks_by_shape_reach_no_service(gateway: RunningGateway, backend: Backend) -> None:
    attacks = {
        "QUERY_TOO_DEEP": "{ node(id: 1) { ... on ApiKey { " + "organization { " * 12 + "name" + "}" * 15,
        "TOO_MANY_ALIASES": "{" + " ".join(f"a{n}: plans {{ edges {{ cursor }} }}" for n in range(50)) + "}",
        "TOO_MANY_DIRECTIVES": "{ plans " + "@skip(if: false) " * 20 + "{ pageInfo { hasNextPage } } }",
        "QUERY_TOO_COSTLY": "{ ...A } fragment A on Query {"
        + " ".join(f"k{n}: auditEntries(first: 100) {{ edges {{ node {{ id actor action }} }} }}" for n in range(15))
        + "}",
        "QUERY_TOO_LONG": "{" + " plans { pageInfo { hasNextPage } } " * 200 + "}",
    }
    for expected, query in attacks.items():
        assert code(await gateway.graphql(query, token=backend.token())) == expected
    assert backend.seen.calls == []


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("{ plans { ... @defer { pageInfo { hasNextPage } } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ plans { edges @stream(initialCount: 0) { cursor } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ plans @x @x { pageInfo { hasNextPage } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { viewer { kind } } query A { viewer { kind } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", "QUERY_TOO_DEEP"),
        ("{ viewer { " + "kind " * 2_000 + "} }", "QUERY_TOO_LONG"),
        ("subscription { viewer { kind } }", "INVALID_FIELDS"),
        ("{ viewer { kind } } # " + "#" * 300_000, "BODY_TOO_LARGE"),
        ("{ nothing" + "x" * 5_000 + " }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_what_graphql_offers_elsewhere_is_refused_here(
    start_gateway: StartGateway, backend: Backend, query: str, reason: str
) -> None:
    gateway = await start_gateway(backend.address, environment="production")
    answer = await gateway.graphql(query, token=backend.token())
    assert code(answer) == reason
    assert len(json.dumps(answer)) < 20_000, "an answer to nonsense is short"
    assert backend.seen.calls == []


async def test_a_query_deeper_than_the_parser_is_refused(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_query_tokens_max=100_000)
    assert code(await gateway.graphql("{a" * 5_000 + "}" * 5_000)) == "QUERY_TOO_DEEP"


async def test_sign_ins_by_alias_are_counted_one_by_one(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_sign_in_address_per_minute=3)
    guesses = " ".join(f'g{n}: signIn(email: "p{n}@a.example", password: "x") {{ role }}' for n in range(5))
    answer = await gateway.graphql("mutation {" + guesses + "}")
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["PASSWORD_WRONG"] * 3 + ["RATE_LIMITED"] * 2
    assert backend.seen.names() == ["CreateSession"] * 3
    status, body, headers = await gateway.rest("POST", "/api/v1/sessions", json={"email": "q@a.example"})
    assert headers["Content-Type"].startswith("application/problem+json")
    assert (status, body["error"]["code"]) == (429, "RATE_LIMITED")
    assert int(headers["Retry-After"]) >= 1


async def test_guessing_one_persons_password_is_limited(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_sign_in_pair_per_minute=2)
    reasons = []
    for email in ("a@b.example", "A@b.example ", "a@b.example", "c@b.example"):
        _, body, _ = await gateway.rest("POST", "/api/v1/sessions", json={"email": email, "password": "x"})
        reasons.append(body["error"]["code"])
    assert reasons == ["PASSWORD_WRONG", "PASSWORD_WRONG", "RATE_LIMITED", "PASSWORD_WRONG"]


async def test_the_owner_gets_in_while_strangers_guess_at_her_address(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(
        backend.address, gateway_trusted_proxies="127.0.0.0/8", monotonic=ManualClock(NOW).monotonic
    )

    async def sign_in(address: str, password: str) -> int:
        body = {"email": "owner@acme.example", "password": password}
        headers = {"X-Forwarded-For": address}
        return (await gateway.rest("POST", "/api/v1/sessions", json=body, headers=headers))[0]

    statuses: dict[str, Counter[int]] = {"owner": Counter(), "strangers": Counter()}
    for _ in range(40):
        guesses = (sign_in(f"198.51.100.{stranger}", "x") for stranger in range(10))
        statuses["strangers"].update(await asyncio.gather(*guesses))
        statuses["owner"][await sign_in("203.0.113.7", PASSWORD)] += 1
    assert statuses["owner"] == {200: 40}
    assert statuses["strangers"] == {401: 30, 429: 370}


async def test_aliased_changes_are_counted_one_by_one(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(
        backend.address,
        gateway_query_aliases_max=400,
        gateway_query_tokens_max=10_000,
        monotonic=ManualClock(NOW).monotonic,
    )
    keys = " ".join(f'k{number}: createApiKey(name: "k") {{ secret }}' for number in range(300))
    answer = await gateway.graphql("mutation {" + keys + "}", token=backend.token())
    assert backend.seen.names() == ["CreateApiKey"] * 30
    refused = answer["errors"][0]["extensions"]
    assert (refused["code"], refused["metadata"]) == ("RATE_LIMITED", {"limited_by": "change_principal"})
    assert refused["retryAfterSeconds"] == pytest.approx(2.0)
    status, body, headers = await gateway.rest(
        "POST", f"/api/v1/organizations/{ACME}/api-keys", json={"name": "k"}, token=backend.token()
    )
    assert (status, body["error"]["code"]) == (429, "RATE_LIMITED")
    assert int(headers["Retry-After"]) >= 1


async def test_nobody_uses_up_the_changes_of_another_organization(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_change_organization_per_minute=3)
    body, path = {"name": "k"}, f"/api/v1/organizations/{ACME}/api-keys"
    for number in range(10):
        stranger = backend.token(organization_id=OTHER, person_id=UUID(int=number))
        assert (await gateway.rest("POST", path, json=body, token=stranger))[0] in {404, 429}
    assert (await gateway.rest("POST", path, json=body, token=backend.token()))[0] == 200


async def test_an_address_that_asks_too_much_is_answered_a_problem(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_address_per_minute=2, gateway_trusted_proxies="127.0.0.0/8")
    for path in ("/graphql", "/api/v1/plans"):
        for _ in range(2):
            forwarded = {"X-Forwarded-For": f"203.0.113.{len(path)}"}
            async with gateway.session.get(f"{gateway.url}{path}", headers=forwarded) as response:
                assert response.status in {200, 405}
        async with gateway.session.get(f"{gateway.url}{path}", headers=forwarded) as response:
            assert response.status == 429
            assert response.content_type == "application/problem+json"
            assert int(response.headers["Retry-After"]) >= 1
            problem = await response.json()
        assert problem["type"].endswith("/rate-limited")
        assert (problem["status"], problem["success"]) == (429, False)
        assert problem["error"]["code"] == "RATE_LIMITED"
    async with gateway.session.get(f"{gateway.url}/health", headers=forwarded) as response:
        assert response.status == 200


async def test_an_organization_that_asks_too_much_is_limited_through_all_its_people(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_organization_per_minute=1)
    path = f"/api/v1/organizations/{ACME}"
    assert (await gateway.rest("GET", path, token=backend.token()))[0] == 200
    status, body, _ = await gateway.rest("GET", path, token=machine_token("gateway"))
    assert (status, body["error"]["details"]["metadata"]) == (429, {"limited_by": "organization"})


async def test_production_hides_its_schema(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, environment="production")
    assert code(await gateway.graphql(get_introspection_query())) == "INTROSPECTION_DISABLED"
    answer = await gateway.graphql("{ plan { name } }")
    assert answer["errors"][0]["message"] == "Cannot query field 'plan' on type 'Query'."
    answer = await gateway.graphql("query ($x: Limit) { viewer { kind } }")
    assert "Limits" not in str(answer)
    answer = await gateway.graphql('{ usage(start: "x", ende: "x") { start } }')
    assert "Did you mean" not in str(answer)


async def test_a_local_schema_can_be_explored(gateway: RunningGateway) -> None:
    answer = await gateway.graphql(get_introspection_query())
    assert "errors" not in answer
    answer = await gateway.graphql("{ plan { name } }")
    assert "Did you mean" in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        ("[]", "application/json", 400, "BATCHING_NOT_OFFERED"),
        ('[{"query": "{ viewer { kind } }"}]', "application/json", 400, "BATCHING_NOT_OFFERED"),
        ("{", "application/json", 400, "BODY_NOT_READABLE"),
        ('"x"', "application/json", 400, "BODY_NOT_READABLE"),
        ('{"query": NaN}', "application/json", 400, "BODY_NOT_READABLE"),
        ("[" * 100_000, "application/json", 400, "BODY_NOT_READABLE"),
        ("{}", "application/json", 400, "QUERY_MISSING"),
        ('{"query": 1}', "application/json", 400, "QUERY_MISSING"),
        ('{"query": "{ a }", "variables": []}', "application/json", 400, "INVALID_FIELDS"),
        ('{"query": "{ a }", "operationName": 1}', "application/json", 400, "INVALID_FIELDS"),
        ('{"query": "{ viewer { kind } }", "operationName": "X"}', "application/json", 400, "INVALID_FIELDS"),
        ('{"query": "subscription { x }"}', "application/json", 400, "INVALID_FIELDS"),
        ('{"query": "{ viewer { kind } }"}', "text/plain", 415, "MEDIA_TYPE_NOT_SUPPORTED"),
        ('{"query": "{ viewer { kind } }"}', "multipart/form-data", 415, "MEDIA_TYPE_NOT_SUPPORTED"),
        ("query=1", "application/x-www-form-urlencoded", 415, "MEDIA_TYPE_NOT_SUPPORTED"),
    ],
)
async def test_what_is_no_request_is_refused(
    gateway: RunningGateway, body: str, content_type: str, status: int, reason: str
) -> None:
    headers = {"Content-Type": content_type}
    async with gateway.session.post(f"{gateway.url}/graphql", data=body, headers=headers) as response:
        assert (response.status, code(await response.json())) == (status, reason)


async def test_a_body_has_a_largest_size_however_it_arrives(gateway: RunningGateway) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 100_000

    zeros = json.dumps({"query": " " * 1_000_000}).encode()
    plain = {"Content-Type": "application/json"}
    for data, headers in ((zeros, plain), (chunks(), plain)):
        async with gateway.session.post(f"{gateway.url}/graphql", data=data, headers=headers) as response:
            assert (response.status, code(await response.json())) == (413, "BODY_TOO_LARGE")


async def test_a_body_that_does_not_arrive_is_not_waited_for(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_SECONDS", 0.05)

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(f"{gateway.url}/graphql", data=trickle(), headers=headers) as response:
        assert (response.status, code(await response.json())) == (408, "BODY_TOO_SLOW")


async def test_a_crash_of_the_gateway_itself_is_masked(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: Any, **_named: Any) -> None:
        raise ValueError("secret words of the implementation")

    monkeypatch.setattr(view, "to_answer", crash)
    async with gateway.session.post(f"{gateway.url}/graphql", json={"query": "{ viewer { kind } }"}) as response:
        text = await response.text()
        assert response.status == 500
        assert "INTERNAL_ERROR" in text
        assert "implementation" not in text


async def test_there_is_no_get_and_no_page(gateway: RunningGateway) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        target = f"{gateway.url}/graphql?query={{viewer{{kind}}}}"
        async with gateway.session.request(method, target, headers={"Accept": "text/html"}) as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            assert response.content_type == "application/problem+json"


async def test_clients_that_know_the_media_type_are_told_by_status(gateway: RunningGateway, backend: Backend) -> None:
    async def post(query: str) -> tuple[int, str, bool]:
        headers = {"Accept": RESPONSE_TYPE, "Authorization": f"Bearer {backend.token()}"}
        async with gateway.session.post(f"{gateway.url}/graphql", json={"query": query}, headers=headers) as response:
            return response.status, response.content_type, "data" in await response.json(content_type=RESPONSE_TYPE)

    assert await post("{ viewer { kind } }") == (200, RESPONSE_TYPE, True)
    assert await post("{ limits(organizationId: 0) { version } }") == (200, RESPONSE_TYPE, True)
    assert await post("{ nothing }") == (400, RESPONSE_TYPE, False)
    assert await post("{") == (400, RESPONSE_TYPE, False)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/graphql"), ("GET", "/api/v1/plans"), ("GET", "/nowhere"), ("GET", "/health")]
)
@pytest.mark.parametrize("environment", ["local", "production"])
async def test_every_answer_carries_the_security_headers(
    start_gateway: StartGateway, backend: Backend, method: str, path: str, environment: str
) -> None:
    gateway = await start_gateway(backend.address, environment=environment)
    async with gateway.session.request(method, f"{gateway.url}{path}") as response:
        for name, value in SECURITY_HEADERS.items():
            assert response.headers.getall(name) == [value]
        assert response.headers.get("Strict-Transport-Security") == (HSTS if environment == "production" else None)
        assert response.headers["Server"] == "tollway"
        assert len(response.headers["X-Request-Id"]) == 36


def test_the_values_of_the_security_headers_are_those_asked_for() -> None:
    assert SECURITY_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert SECURITY_HEADERS["X-Frame-Options"] == "DENY"
    assert SECURITY_HEADERS["X-XSS-Protection"] == "0"
    assert "default-src 'none'" in SECURITY_HEADERS["Content-Security-Policy"]
    assert SECURITY_HEADERS["Referrer-Policy"]
    assert HSTS.startswith("max-age=31536000")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_with_every_service_down_each_answer_is_typed_and_the_gateway_ready(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(f"127.0.0.1:{closed_port()}")
    query = f"""{{
      plans {{ edges {{ cursor }} }} viewer {{ kind }} invoicePreview(organizationId: "{ACME}") {{ planId }}
    }}"""
    answer = await gateway.graphql(query, token=backend.token())
    assert {error["extensions"]["status"] for error in answer["errors"]} == {"UNAVAILABLE"}
    assert set(answer["data"].values()) == {None}
    sign_in = {"email": "a@b.example", "password": PASSWORD}
    status, body, _ = await gateway.rest("POST", "/api/v1/sessions", json=sign_in)
    assert (status, body["error"]["details"]["status"]) == (503, "UNAVAILABLE")
    async with gateway.session.get(f"{gateway.url}/health/ready") as response:
        health = await response.json()
        assert (response.status, health["status"]) == (200, "degraded")
        assert "tollway.auth.v1.AuthService" in health["degraded"]
    async with gateway.session.get(f"{gateway.url}/health/live") as response:
        assert await response.json() == {"status": "live"}


async def test_one_service_down_leaves_the_others_working(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, billing_address=f"127.0.0.1:{closed_port()}")
    answer = await gateway.graphql("{ limits { version } invoicePreview { planId } }", token=backend.token())
    assert answer["data"]["limits"] == {"version": 3}
    assert answer["errors"][0]["path"] == ["invoicePreview"]
    assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"


async def test_a_service_that_hangs_is_given_up_within_the_deadline(
    start_gateway: StartGateway, backend: Backend
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        gateway = await start_gateway(backend.address, billing_address=address, gateway_request_timeout_seconds=0.5)
        async with asyncio.timeout(60):
            answer = await gateway.graphql("{ plans { edges { cursor } } }")
        assert answer["errors"][0]["extensions"]["code"] in {"SERVICE_TIMED_OUT", "SERVICE_UNAVAILABLE"}


async def test_a_service_that_comes_back_is_found_again(start_gateway: StartGateway, backend: Backend) -> None:
    port = closed_port()
    gateway = await start_gateway(backend.address, billing_address=f"127.0.0.1:{port}")
    assert "errors" in await gateway.graphql("{ plans { edges { cursor } } }")
    late = grpc.aio.server()
    late.add_generic_rpc_handlers((_plans_handler(),))
    late.add_insecure_port(f"127.0.0.1:{port}")
    await late.start()
    try:
        async with asyncio.timeout(60):
            while "errors" in await gateway.graphql("{ plans { edges { cursor } } }"):
                await asyncio.sleep(0.05)
    finally:
        await late.stop(0)


def _plans_handler() -> grpc.GenericRpcHandler:
    rpc = FIELDS["Query.plans"]

    async def answer(_request: Any, _context: Any) -> Any:
        return rpc.response()

    handler = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=rpc.request.FromString, response_serializer=rpc.response.SerializeToString
    )
    return grpc.method_handlers_generic_handler(
        rpc.descriptor.containing_service.full_name, {rpc.descriptor.name: handler}
    )


async def test_the_request_id_and_the_trace_reach_the_service(start_gateway: StartGateway, backend: Backend) -> None:
    seen: list[dict[str, Any]] = []

    class Watch(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.append(dict(details.invocation_metadata))
            return await continuation(details)

    server = grpc.aio.server(interceptors=[Watch()])
    server.add_generic_rpc_handlers((_plans_handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        gateway = await start_gateway(backend.address, billing_address=f"127.0.0.1:{port}")
        headers = {"Authorization": f"Bearer {backend.token()}"}
        async with gateway.session.get(f"{gateway.url}/api/v1/plans", headers=headers) as response:
            assert response.status == 200
            assert seen[-1]["x-request-id"] == response.headers["X-Request-Id"]
        assert "authorization" not in seen[-1], "an RPC that asks for no credentials is sent none"
        observability.configure_tracing("gateway", InMemorySpanExporter())
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers["traceparent"] = f"00-{trace_id}-00f067aa0ba902b7-01"
        async with gateway.session.get(f"{gateway.url}/api/v1/plans", headers=headers) as response:
            assert response.status == 200
        assert seen[-1]["traceparent"].split("-")[1] == trace_id
        assert seen[-1]["traceparent"].split("-")[2] != "00f067aa0ba902b7"
    finally:
        await server.stop(0)


async def test_a_service_that_nobody_answers_for_is_named(backend: Backend, gateway: RunningGateway) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/health/ready") as response:
        assert await response.json() == {
            "status": "degraded",
            "degraded": {"tollway.notification.v1.NotificationService": "ServiceNotServing"},
        }


async def test_guessing_refresh_tokens_is_limited_by_address_and_renewing_is_not(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_sign_in_address_per_minute=3)

    async def refresh(token: str) -> int:
        return (await gateway.rest("POST", "/api/v1/sessions:refresh", json={"refresh_token": token}))[0]

    assert [await refresh(REFRESH_TOKEN) for _ in range(10)] == [200] * 10
    assert [await refresh("x") for _ in range(5)] == [401] * 3 + [429] * 2
    assert await refresh(REFRESH_TOKEN) == 429


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=method.full_name)
        for service in SERVICES.values()
        for method in service.descriptor.methods
        if generic_rpc(method).anyone and generic_rpc(method).changes_something
    ],
)
async def test_whatever_strangers_may_change_is_counted_by_their_address(
    start_gateway: StartGateway, backend: Backend, method: Any
) -> None:
    """Read from the descriptors, so that it covers RPCs written later."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    gateway = await start_gateway(backend.address, gateway_sign_in_address_per_minute=2)
    statuses = [(await gateway.rest("POST", rule.post, json={}))[0] for _ in range(4)]
    assert 429 not in statuses[:2]
    assert statuses[2:] == [429, 429]
