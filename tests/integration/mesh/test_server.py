"""The guard around every handler, over a real gRPC connection."""

import asyncio
from uuid import UUID

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.auth.v1 import auth_service_pb2_grpc
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.rpc.access import ANYONE, Principal, PrincipalKind, Verifier, current_principal
from mesh.rpc.client import Clients, forward, open_channel
from mesh.rpc.errors import NotFound, Violations, from_grpc
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from mesh.service.listener import HealthListener
from tests.support.processes import PROCESS_KEYS, process_fields, process_metadata

OWN, OTHER = UUID(int=1), UUID(int=2)


class KeyNotFound(NotFound):
    """There is no such API key."""


class Handler(auth_service_pb2_grpc.AuthServiceServicer):
    """Answers in the ways that a handler can."""

    def __init__(self, signer):
        self.signer = signer
        self.failures_left = 0
        self.calls = 0

    async def GetJwks(self, request, context):
        self.calls += 1
        if self.failures_left:
            self.failures_left -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return auth.GetJwksResponse(jwks_json=self.signer.jwks_json())

    async def GetOrganization(self, request, context):
        return auth.Organization(organization_id=request.organization_id, name=current_principal().subject)

    async def RevokeApiKey(self, request, context):
        raise KeyNotFound("secret detail")

    async def ListApiKeys(self, request, context):
        violations = Violations()
        violations.add("page_size", "must be 1 to 100")
        violations.raise_if_any()

    async def ListAuditEntries(self, request, context):
        raise ZeroDivisionError("password=hunter2")

    async def CreateSession(self, request, context):
        await asyncio.Event().wait()

    async def WatchKeys(self, request, context):
        yield auth.WatchKeysResponse()
        raise ZeroDivisionError("password=hunter2")


@pytest.fixture
async def signer():
    return SessionSigner(seed=bytes(32), clock=SystemClock(), ids=RandomIds())


@pytest.fixture
def handler(signer):
    return Handler(signer)


@pytest.fixture
async def server(handler):
    health = {"up": True}

    async def database():
        if not health["up"]:
            raise ConnectionError

    async def jwks():
        return handler.signer.jwks_json()

    async def resolve(token):
        return None

    verifier = Verifier(
        process_keys=PROCESS_KEYS,
        audience="auth",
        fetch_jwks=jwks,
        resolve_service_account=resolve,
        clock=SystemClock(),
    )
    server = await Server.start(
        name="auth",
        listen="127.0.0.1:0",
        services=[(SERVICES["auth"].descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, handler)],
        verifier=verifier,
        clock=SystemClock(),
        ids=RandomIds(),
        checks={"postgres": database},
    )
    server.health = health
    yield server
    await server.stop(0)


@pytest.fixture
async def clients(server, monkeypatch):
    settings = ProcessSettings(**process_fields("edge_proxy"), auth_address=f"127.0.0.1:{server.port}")
    clients = Clients(settings, process="edge_proxy")
    yield clients
    await clients.close()


def session(signer, role="owner", organization_id=OWN):
    token, _ = signer.issue(person_id=UUID(int=9), organization_id=organization_id, role=role)
    return forward(Principal(kind=PrincipalKind.PERSON, token=token))


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_grpc(raised.value)


async def test_the_handler_knows_who_calls(clients, signer):
    request = auth.GetOrganizationRequest(organization_id=str(OWN))
    answer = await clients.auth.GetOrganization(request, metadata=session(signer))
    assert answer.name == str(UUID(int=9))
    assert current_principal() is ANYONE


async def test_an_exceptions_text_never_reaches_the_caller(clients, signer):
    request = auth.ListAuditEntriesRequest(organization_id=str(OWN))
    error = await failure(clients.auth.ListAuditEntries(request, metadata=session(signer)))
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "hunter2" not in error.message

    watch = clients.auth.WatchKeys(auth.WatchKeysRequest(), metadata=clients.metadata("auth"))
    assert await watch.read() == auth.WatchKeysResponse()
    error = await failure(watch.read())
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "hunter2" not in error.message


async def test_a_typed_error_carries_its_reason_and_keeps_its_detail(clients, signer):
    request = auth.RevokeApiKeyRequest(organization_id=str(OWN))
    error = await failure(clients.auth.RevokeApiKey(request, metadata=session(signer)))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
    assert "secret detail" not in error.message


async def test_wrong_fields_are_named(clients, signer):
    request = auth.ListApiKeysRequest(organization_id=str(OWN))
    error = await failure(clients.auth.ListApiKeys(request, metadata=session(signer)))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert [(v.field, v.description) for v in error.violations] == [("page_size", "must be 1 to 100")]


async def test_another_tenant_a_missing_role_and_no_credentials(clients, signer, server):
    other = await failure(
        clients.auth.GetOrganization(auth.GetOrganizationRequest(organization_id=str(OTHER)), metadata=session(signer))
    )
    role = await failure(
        clients.auth.ListAuditEntries(
            auth.ListAuditEntriesRequest(organization_id=str(OWN)), metadata=session(signer, "member")
        )
    )
    channel = open_channel(f"127.0.0.1:{server.port}", SERVICES["auth"].descriptor, list)
    nobody = await failure(
        auth_service_pb2_grpc.AuthServiceStub(channel).GetOrganization(
            auth.GetOrganizationRequest(organization_id=str(OWN))
        )
    )
    await channel.close()
    process = await failure(clients.auth.GetOrganization(auth.GetOrganizationRequest(organization_id=str(OWN))))
    assert (other.code, role.code) == (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)
    assert (nobody.code, process.code) == (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    assert access_pb2.Permission.Name(access_pb2.PERMISSION_AUDIT_READ).endswith(role.metadata["permission"])


async def test_an_idempotent_call_is_tried_again_while_unavailable(clients, handler):
    handler.failures_left = 2
    assert (await clients.auth.GetJwks(auth.GetJwksRequest())).jwks_json
    assert handler.calls == 3


@pytest.mark.parametrize("given", [{"timeout": 0.1}, {}])
async def test_a_call_without_answer_ends_at_its_deadline(clients, monkeypatch, given):
    monkeypatch.setattr("mesh.rpc.client.DEADLINE_SECONDS", 0.1)
    error = await failure(clients.auth.CreateSession(auth.CreateSessionRequest(), **given))
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_second_server_on_the_port_is_refused(server, handler):
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        await Server.start(
            name="auth",
            listen=f"127.0.0.1:{server.port}",
            services=[(SERVICES["auth"].descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, handler)],
            verifier=None,
            clock=SystemClock(),
            ids=RandomIds(),
        )


async def test_health_follows_each_dependency(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service):
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

        names = ("", "tollway.auth.v1.AuthService", "postgres")
        assert {await status(name) for name in names} == {health_pb2.HealthCheckResponse.SERVING}
        server.health["up"] = False
        assert {await status(name) for name in names} == {health_pb2.HealthCheckResponse.NOT_SERVING}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await status("unheard-of")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        call.cancel()
    assert "tollway.auth.v1.AuthService" in {s.name for s in answer.list_services_response.service}


async def test_the_listener_names_what_fails():
    async def fine():
        return None

    async def broken():
        raise ConnectionError("dsn=postgres://secret")

    listener = HealthListener(required={"postgres": fine}, optional={"redis": broken})
    port = await listener.start("127.0.0.1:0")
    strict = HealthListener(required={"postgres": broken})
    strict_port = await strict.start("127.0.0.1:0")
    try:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/health/ready") as answer:
                assert answer.status == 200
                assert await answer.json() == {
                    "status": "ready",
                    "failing": {},
                    "degraded": {"redis": "ConnectionError"},
                }
            async with http.get(f"http://127.0.0.1:{strict_port}/health/ready") as answer:
                assert (answer.status, "secret" in await answer.text()) == (503, False)
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert "tollway_rpc_requests_total" in await answer.text()
            async with http.get(f"http://127.0.0.1:{port}/health/live") as answer:
                assert answer.status == 200
    finally:
        await listener.stop()
        await strict.stop()


async def test_two_credentials_are_none(clients, signer):
    request = auth.GetOrganizationRequest(organization_id=str(OWN))
    twice = [*session(signer), *session(signer)]
    error = await failure(clients.auth.GetOrganization(request, metadata=twice))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


@pytest.mark.parametrize("raw", [b"\xff" * 20, b"\x0a\x05\xed\xa0\x80ab", b"\x0a\x7f"])
async def test_bytes_that_are_no_request_are_the_callers_error_and_name_no_class(server, signer, raw):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary("/tollway.auth.v1.AuthService/GetOrganization")
        error = await failure(call(raw, metadata=session(signer)))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_UNREADABLE")
        assert "Error" not in error.message
        nobody = await failure(call(raw))
        assert nobody.reason == "CREDENTIALS_MISSING"


async def test_bytes_that_are_no_request_on_a_stream_are_the_callers_error(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_stream("/tollway.auth.v1.AuthService/WatchKeys")
        error = await failure(call(b"\xff" * 20, metadata=process_metadata("edge_proxy", "auth")).read())
        assert error.reason == "REQUEST_UNREADABLE"


@pytest.mark.parametrize("raw", [b"\xff" * 20, b"\x0a\x01\xff"])
async def test_health_and_reflection_tell_unreadable_bytes_in_our_words(server, raw):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        reflected = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        await reflected.write(raw)
        calls = (
            channel.unary_unary("/grpc.health.v1.Health/Check")(raw),
            channel.unary_stream("/grpc.health.v1.Health/Watch")(raw).read(),
            reflected.read(),
        )
        for call in calls:
            error = await failure(call)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_UNREADABLE")


async def test_health_can_be_watched(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_wrong_field_is_named_before_the_handler_sees_it(clients, signer):
    request = auth.ListAuditEntriesRequest(organization_id=str(OWN), page_token="a\0b")
    error = await failure(clients.auth.ListAuditEntries(request, metadata=session(signer)))
    assert [violation.field for violation in error.violations] == ["page_token"]
