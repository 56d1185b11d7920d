"""REST over real HTTP and real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import yarl
from google.protobuf.message_factory import GetMessageClass

from graphql_gateway.config import GatewaySettings
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Verifier
from mesh.rpc.server import Server
from tests.integration.graphql_gateway.conftest import (
    ACME,
    KEYS,
    OTHER,
    PASSWORD,
    SERVICE_ACCOUNT_TOKEN,
    Backend,
    RunningGateway,
    StartGateway,
)
from tests.support.processes import PROCESS_KEYS
from tests.support.widgets import widget_service

HOME = f"/api/v1/organizations/{ACME}"


async def test_a_session_opens_usage_and_the_invoice_preview(gateway: RunningGateway, backend: Backend) -> None:
    sign_in = {"email": "owner@acme.example", "password": PASSWORD}
    status, session, headers = await gateway.rest("POST", "/api/v1/sessions", json=sign_in)
    assert (status, session["success"], session["message"]) == (200, True, "OK")
    assert session["data"]["role"] == "ROLE_OWNER"
    assert headers["Cache-Control"] == "no-store"
    token = session["data"]["access_token"]

    query = [
        ("start_time", "2026-01-01T00:00:00Z"),
        ("end_time", "2026-02-01T00:00:00Z"),
        ("granularity", "GRANULARITY_DAY"),
        ("group_by", "DIMENSION_API_KEY"),
    ]
    status, usage, _ = await gateway.rest("GET", f"{HOME}/usage", token=token, params=query)
    assert status == 200
    assert usage["data"]["rows"][0] == {
        "start_time": "2026-01-01T00:00:00Z",
        "group": [str(KEYS[0])],
        "request_count": "10",
        "billable_count": "9",
        "billable_units": "1.1",
        "test_count": "1",
    }
    status, preview, _ = await gateway.rest("GET", f"{HOME}/invoices:preview", token=token)
    assert (status, preview["data"]["total"]) == (200, {"amount_minor": "6000", "currency_code": "USD"})


async def test_a_key_is_created_once_and_revoked(gateway: RunningGateway, backend: Backend) -> None:
    status, created, _ = await gateway.rest(
        "POST",
        f"{HOME}/api-keys",
        token=SERVICE_ACCOUNT_TOKEN,
        headers={"Idempotency-Key": "k-1"},
        json={"name": "ci", "mode": "KEY_MODE_LIVE", "allowedIps": ["10.0.0.0/8"]},
    )
    assert status == 200
    assert created["data"]["secret"].startswith("sk_live_")
    assert backend.seen.last().idempotency_key == "k-1"
    assert list(backend.seen.last().allowed_ips) == ["10.0.0.0/8"]
    path = f"{HOME}/api-keys/{created['data']['api_key']['api_key_id']}:revoke"
    status, revoked, _ = await gateway.rest("POST", path, token=SERVICE_ACCOUNT_TOKEN)
    assert (status, "revoke_time" in revoked["data"]) == (200, True)


async def test_failures_come_in_the_envelope_with_the_services_reason(
    gateway: RunningGateway, backend: Backend
) -> None:
    token = backend.token()

    async def failed(method: str, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        status, body, headers = await gateway.rest(method, path, **arguments)
        assert body["success"] is False
        assert body["error"]["details"]["request_id"] == headers["X-Request-Id"]
        return status, body["error"]

    status, error = await failed("POST", f"{HOME}/api-keys", token=token, json={"name": ""})
    assert (status, error["code"]) == (400, "INVALID_FIELDS")
    assert error["details"]["violations"] == [{"field": "name", "description": "must be 1 to 100 characters"}]
    status, error = await failed("POST", f"{HOME}/api-keys", token=token, json={"name": "one too many"})
    assert (status, error["code"], error["details"]["status"]) == (400, "KEY_LIMIT_REACHED", "FAILED_PRECONDITION")
    status, error = await failed("POST", f"{HOME}/api-keys", token=token, json={"name": "crash"})
    assert (status, error["code"]) == (500, "INTERNAL_ERROR")
    assert "implementation" not in str(error)
    status, error = await failed("GET", HOME)
    assert (status, error["code"]) == (401, "CREDENTIALS_MISSING")
    status, error = await failed("GET", HOME, token="nonsense")
    assert (status, error["code"]) == (401, "CREDENTIALS_INVALID")
    status, error = await failed("GET", f"/api/v1/organizations/{OTHER}", token=token)
    assert (status, error["code"]) == (404, "ORGANIZATION_NOT_FOUND")
    status, error = await failed("GET", f"{HOME}/invoices:preview", token=backend.token(role="member"))
    assert (status, error["details"]["status"]) == (403, "PERMISSION_DENIED")
    status, error = await failed("GET", "/api/v1/organizations/acme", token=token)
    assert (status, error["details"]["violations"][0]["field"]) == (400, "organization_id")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/api/v1/nothing", 404, None),
        ("GET", "/api/v1/plans/", 404, None),
        ("GET", "/api/v1//plans", 404, None),
        ("GET", "/api/v1/organizations/%zz", 404, None),
        ("GET", "/", 404, None),
        ("POST", "/api/v1/plans", 405, "GET, HEAD"),
        ("DELETE", f"{HOME}/api-keys", 405, "GET, HEAD, PATCH, POST"),
        ("GET", f"{HOME}/api-keys/1:revoke", 405, "POST"),
        ("GET", f"{HOME}/api-keys/1:renew", 404, None),
    ],
)
async def test_paths_and_methods_that_are_none(
    gateway: RunningGateway, method: str, path: str, status: int, allow: str | None
) -> None:
    target = yarl.URL(gateway.url + path, encoded=True)
    async with gateway.session.request(method, target) as response:
        body = await response.json()
        assert (response.status, response.headers.get("Allow")) == (status, allow)
        assert body["error"]["code"] == ("ROUTE_NOT_FOUND" if status == 404 else "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("{", "application/json", (400, "BODY_NOT_READABLE", [])),
        ("[]", "application/json", (400, "BODY_NOT_READABLE", [])),
        ("null", "application/json", (400, "BODY_NOT_READABLE", [])),
        ("\ud83d", "application/json", (400, "BODY_NOT_READABLE", [])),
        ("name=x", "application/x-www-form-urlencoded", (415, "MEDIA_TYPE_NOT_SUPPORTED", [])),
        (
            '{"nme": "x", "mode": "LIVE", "scopes": "a"}',
            "application/json",
            (400, "INVALID_FIELDS", ["nme", "mode", "scopes"]),
        ),
    ],
)
async def test_bodies_that_are_wrong_are_named_and_go_nowhere(
    gateway: RunningGateway, backend: Backend, body: str, content_type: str, expected: tuple[int, str, list[str]]
) -> None:
    answered, answer, _ = await gateway.rest(
        "POST",
        f"{HOME}/api-keys",
        token=backend.token(),
        data=body.encode("utf-8", "surrogatepass"),
        headers={"Content-Type": content_type},
    )
    fields = [v["field"] for v in answer["error"]["details"].get("violations", [])]
    assert (answered, answer["error"]["code"], fields) == expected
    assert backend.seen.calls == []


async def test_a_head_is_a_get_without_its_body(gateway: RunningGateway) -> None:
    async with gateway.session.head(f"{gateway.url}/api/v1/plans") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 2
        assert await response.read() == b""


async def test_the_document_is_served(gateway: RunningGateway) -> None:
    status, document, _ = await gateway.rest("GET", "/api/v1/openapi.json")
    assert status == 200
    assert "/api/v1/organizations/{organization_id}/api-keys/{api_key_id}:revoke" in document["paths"]


class WidgetSettings(GatewaySettings):
    """What an installation with the made-up service sets."""

    widgets_address: str


@pytest.fixture
async def widgets() -> AsyncIterator[str]:
    """A server of the made-up service that answers what it was asked."""
    service = widget_service()
    widget = GetMessageClass(service.file.message_types_by_name["Widget"])

    async def get(request: Any, _context: Any) -> Any:
        return widget(widget_id=request.widget_id, color=request.filter.color, labels=[request.filter.shelf])

    async def put(request: Any, _context: Any) -> Any:
        return request.widget

    async def paint(request: Any, _context: Any) -> Any:
        answer = GetMessageClass(service.methods_by_name["PaintWidget"].output_type)()
        answer.widget.widget_id = request.widget_id
        answer.widget.color = request.color
        answer.widget.labels.append(request.idempotency_key)
        return answer

    def register(_handler: Any, server: grpc.aio.Server) -> None:
        handlers = {}
        for name, behaviour in {"GetWidget": get, "DeleteWidget": get, "PutWidget": put, "PaintWidget": paint}.items():
            method = service.methods_by_name[name]
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                behaviour,
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    async def nobody(*_arguments: Any) -> Any:
        return None

    server = await Server.start(
        name="widgets",
        listen="127.0.0.1:0",
        services=[(service, register, None)],
        verifier=Verifier(
            process_keys=PROCESS_KEYS,
            audience="widgets",
            fetch_jwks=nobody,
            resolve_service_account=nobody,
            clock=SystemClock(),
        ),
        clock=SystemClock(),
        ids=RandomIds(),
    )
    yield f"127.0.0.1:{server.port}"
    await server.stop(0)


async def test_a_service_that_no_python_knows_is_served(start_gateway: StartGateway, widgets: str) -> None:
    gateway = await start_gateway(
        widgets, described=[widget_service()], settings_class=WidgetSettings, widgets_address=widgets
    )

    async def data(method: str, path: str, **arguments: Any) -> Any:
        status, body, _ = await gateway.rest(method, path, **arguments)
        assert (status, body["success"]) == (200, True), body
        return body["data"]

    got = await data("GET", "/api/v1/shelves/top/widgets/7", params={"filter.color": "COLOR_RED"})
    assert (got["widget_id"], got["color"], got["labels"]) == ("7", "COLOR_RED", ["top"])
    put = await data(
        "PUT", "/api/v1/widgets/7", json={"weight_grams": "9007199254740993"}, params={"validate_only": "true"}
    )
    assert (put["widget_id"], put["weight_grams"]) == ("7", "9007199254740993")
    painted = await data("POST", "/api/v1/widgets/7:paint", json={"color": 2}, headers={"Idempotency-Key": "once"})
    assert (painted["color"], painted["labels"]) == ("COLOR_BLUE", ["once"]), "response_body is what is answered"
    assert (await data("DELETE", "/api/v1/widgets/7"))["widget_id"] == "7"
    status, body, _ = await gateway.rest("PATCH", "/api/v1/widgets/7", json={})
    assert (status, body["error"]["code"]) == (501, "NOT_IMPLEMENTED_YET")
    document = await data_of_document(gateway)
    assert "/api/v1/widgets/{widget_id}:paint" in document["paths"]


async def data_of_document(gateway: RunningGateway) -> dict[str, Any]:
    _, document, _ = await gateway.rest("GET", "/api/v1/openapi.json")
    return document


async def test_a_service_without_an_address_is_not_offered(start_gateway: StartGateway, widgets: str) -> None:
    gateway = await start_gateway(widgets, described=[widget_service()])
    status, body, _ = await gateway.rest("GET", "/api/v1/widgets/7")
    assert (status, body["error"]["code"]) == (501, "NOT_IMPLEMENTED_YET")


@pytest.mark.parametrize("key", ["", "x" * 129])
async def test_an_idempotency_key_has_a_form(gateway: RunningGateway, backend: Backend, key: str) -> None:
    status, body, _ = await gateway.rest(
        "POST", f"{HOME}/api-keys", token=backend.token(), json={"name": "k"}, headers={"Idempotency-Key": key}
    )
    assert (status, body["error"]["details"]["violations"][0]["field"]) == (400, "Idempotency-Key")
    assert backend.seen.calls == []
