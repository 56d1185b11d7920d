"""Authorization as one matrix: every RPC of the contract, every kind of caller, over real connections.

The handlers only note that they were reached, so a refusal also shows that nothing was read or written. RPCs that are
added later are in the matrix without a line here.
"""

import itertools
from uuid import UUID

import grpc
import pytest
from google.protobuf import message_factory
from tollway.auth.v1 import auth_service_pb2_grpc
from tollway.billing.v1 import billing_service_pb2_grpc
from tollway.metering.v1 import metering_service_pb2_grpc
from tollway.notification.v1 import notification_service_pb2_grpc
from tollway.options.v1 import access_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2_grpc

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Principal, PrincipalKind, Verifier, platform_role_has, read_rule, role_has
from mesh.rpc.errors import from_grpc
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from tests.support.processes import PROCESS_KEYS, process_tokens

OWN, OTHER = UUID(int=1), UUID(int=2)
ROLES = {"owner": access_pb2.ROLE_OWNER, "admin": access_pb2.ROLE_ADMIN, "member": access_pb2.ROLE_MEMBER}
PLATFORM = {"admin": access_pb2.PLATFORM_ROLE_ADMIN, "support": access_pb2.PLATFORM_ROLE_SUPPORT}
REGISTER = {
    "auth": auth_service_pb2_grpc.add_AuthServiceServicer_to_server,
    "ratelimit": ratelimit_service_pb2_grpc.add_RateLimitServiceServicer_to_server,
    "metering": metering_service_pb2_grpc.add_MeteringServiceServicer_to_server,
    "billing": billing_service_pb2_grpc.add_BillingServiceServicer_to_server,
    "notification": notification_service_pb2_grpc.add_NotificationServiceServicer_to_server,
}
METHODS = [
    pytest.param(service, method, id=f"{service.name}.{method.name}")
    for service in (each.descriptor for each in SERVICES.values())
    for method in service.methods
]


class Reached:
    """Stands for every handler: notes the call and answers with nothing."""

    def __init__(self):
        self.calls = 0
        for service in (each.descriptor for each in SERVICES.values()):
            for method in service.methods:
                answer = message_factory.GetMessageClass(method.output_type)
                setattr(self, method.name, self._stream(answer) if method.server_streaming else self._unary(answer))

    def _unary(self, answer):
        async def handle(request, context):
            self.calls += 1
            return answer()

        return handle

    def _stream(self, answer):
        async def handle(request, context):
            self.calls += 1
            yield answer()

        return handle


@pytest.fixture
def signer():
    return SessionSigner(seed=bytes(32), clock=SystemClock(), ids=RandomIds())


@pytest.fixture
async def reached(signer):
    handler = Reached()
    accounts = {
        f"tw_sa_{name}": Principal(
            kind=PrincipalKind.SERVICE_ACCOUNT, subject="sa", organization_id=OWN, role=role, token=f"tw_sa_{name}"
        )
        for name, role in ROLES.items()
    }

    async def jwks():
        return signer.jwks_json()

    async def resolve(token):
        return accounts.get(token)

    verifier = Verifier(
        process_keys=PROCESS_KEYS,
        audience="matrix",
        fetch_jwks=jwks,
        resolve_service_account=resolve,
        clock=SystemClock(),
    )
    server = await Server.start(
        name="matrix",
        listen="127.0.0.1:0",
        services=[(SERVICES[name].descriptor, register, handler) for name, register in REGISTER.items()],
        verifier=verifier,
        clock=SystemClock(),
        ids=RandomIds(),
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        handler.channel = channel
        yield handler
    await server.stop(0)


async def outcome(reached, service, method, authorization, organization_id=OWN):
    """Calls an RPC and returns its code, and whether its handler was reached."""
    request = message_factory.GetMessageClass(method.input_type)()
    field = read_rule(method).tenant_field
    if field:
        setattr(request, field, str(organization_id))
    kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
    call = getattr(reached.channel, kind)(
        f"/{service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    metadata = [("authorization", authorization)] if authorization else []
    before = reached.calls
    try:
        answered = call(iter([request]) if method.client_streaming else request, metadata=metadata)
        if method.server_streaming:
            await answered.read()
        else:
            await answered
        code = grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        code = from_grpc(error).code
    return code, reached.calls > before


def expected(rule, kind, *, holds=True, same_tenant=True, process=""):
    """Says in words of its own what the access option promises."""
    if access_pb2.CALLER_ANYONE in rule.callers:
        return grpc.StatusCode.OK
    if kind == access_pb2.CALLER_ANYONE:
        return grpc.StatusCode.UNAUTHENTICATED
    if kind not in rule.callers or (kind == access_pb2.CALLER_PROCESS and process not in rule.processes):
        return grpc.StatusCode.PERMISSION_DENIED
    if kind == access_pb2.CALLER_PROCESS or (same_tenant and holds):
        return grpc.StatusCode.OK
    return grpc.StatusCode.PERMISSION_DENIED if same_tenant else grpc.StatusCode.NOT_FOUND


def callers(rule, signer):
    """Yields (what it is, authorization, tenant named, code that is due)."""
    yield "anonymous", "", OWN, expected(rule, access_pb2.CALLER_ANYONE)
    for (name, role), tenant in itertools.product(ROLES.items(), (OWN, OTHER)):
        holds = bool(rule.permission) and role_has(role, rule.permission)
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OWN, role=name)
        due = expected(rule, access_pb2.CALLER_PERSON, holds=holds, same_tenant=tenant == OWN)
        yield f"{name} to {tenant}", f"Bearer {token}", tenant, due
        due = expected(rule, access_pb2.CALLER_SERVICE_ACCOUNT, holds=holds, same_tenant=tenant == OWN)
        yield f"service account {name} to {tenant}", f"Bearer tw_sa_{name}", tenant, due
    for name, role in PLATFORM.items():
        holds = bool(rule.permission) and platform_role_has([role], rule.permission)
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OTHER, role="member", platform_roles=[name])
        due = expected(rule, access_pb2.CALLER_PERSON, holds=True, same_tenant=holds)
        yield f"platform {name}", f"Bearer {token}", OWN, due
    for process in ("edge_proxy", "billing", "auth", "cli", "graphql_gateway"):
        authorization = process_tokens(process).bearer("matrix")
        yield process, authorization, OWN, expected(rule, access_pb2.CALLER_PROCESS, process=process)


@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_who_may_call(reached, signer, service, method):
    rule = read_rule(method)
    for who, authorization, tenant, due in callers(rule, signer):
        code, was_reached = await outcome(reached, service, method, authorization, tenant)
        assert (who, code) == (who, due)
        assert was_reached == (due == grpc.StatusCode.OK), who
