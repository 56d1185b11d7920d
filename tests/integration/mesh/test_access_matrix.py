"""Authorization as one matrix: every RPC of the contract, every kind of caller, over real connections.

The handlers only note that they were reached. Which permission an RPC needs comes from its descriptor, so an RPC that
is written later is covered without a line here. Which role holds which permission is written down here a second time,
as the role table of the design has it: a grant that is widened by mistake has to be widened twice, and a new permission
needs a row in `MAY`. So does an RPC that anyone may call, in `OPEN_TO_ANYONE`. That a refused call writes nothing is
shown with the real handlers in `test_refused_calls.py`.
"""

import importlib
import itertools
from uuid import UUID

import grpc
import pytest
from google.protobuf import message_factory
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Principal, PrincipalKind, Verifier
from mesh.rpc.errors import from_grpc
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from tests.support.machine_tokens import machine_token
from tests.support.processes import NAMES, PROCESS_KEYS, process_tokens

OWN, OTHER = UUID(int=1), UUID(int=2)
ROLES = {"owner": access_pb2.ROLE_OWNER, "admin": access_pb2.ROLE_ADMIN, "member": access_pb2.ROLE_MEMBER}
PLATFORM = {
    name.removeprefix("PLATFORM_ROLE_").lower(): number
    for name, number in access_pb2.PlatformRole.items()
    if number != access_pb2.PLATFORM_ROLE_UNSPECIFIED
}
EVERYBODY, MANAGERS = {"owner", "admin", "member"}, {"owner", "admin"}
OPERATORS = {"admin", "support"}
MAY: dict[str, tuple[set[str], set[str]]] = {
    # Permission: roles in the own organization, roles of the operator's people.
    "ORGANIZATION_READ": (EVERYBODY, OPERATORS),
    "ORGANIZATION_UPDATE": (MANAGERS, {"admin"}),
    "ORGANIZATION_DELETE": ({"owner"}, {"admin"}),
    "KEYS_READ": (EVERYBODY, OPERATORS),
    "KEYS_CREATE": (EVERYBODY, {"admin"}),
    # Members only their own: `test_members_revoke_their_own_keys_and_no_others`.
    "KEYS_REVOKE": (EVERYBODY, {"admin"}),
    "KEYS_UPDATE": (EVERYBODY, {"admin"}),
    "KEYS_IMPORT": (MANAGERS, {"admin"}),
    # No RPC asks for it: it is what putting `events:write` on a key takes.
    "EVENTS_WRITE": (MANAGERS, {"admin"}),
    "LIMITS_READ": (EVERYBODY, OPERATORS),
    "USAGE_READ": (EVERYBODY, OPERATORS),
    "BILLING_READ": (MANAGERS, OPERATORS),
    "BILLING_WRITE": ({"owner"}, {"admin"}),
    "AUDIT_READ": (MANAGERS, OPERATORS),
    "MEMBERS_READ": (EVERYBODY, OPERATORS),
    # Invitations above one's own role, and removing owners and admins: rules of their own, tests of their own.
    "MEMBERS_INVITE": (MANAGERS, {"admin"}),
    "MEMBERS_REMOVE": (MANAGERS, {"admin"}),
    "ROLES_CHANGE": ({"owner"}, {"admin"}),
    "SERVICE_ACCOUNTS_READ": (MANAGERS, OPERATORS),
    "SERVICE_ACCOUNTS_MANAGE": (MANAGERS, {"admin"}),
    "KEYS_CHECK": (set(), {"gateway"}),
    "OPERATIONS_READ": (set(), OPERATORS),
    "OPERATIONS_WRITE": (set(), {"admin"}),
}
OPEN_TO_ANYONE = {
    "AuthService.CreateSession",
    "AuthService.RefreshSession",
    "AuthService.GetJwks",
    "AuthService.Register",
    "AuthService.RegisterByInvitation",
    "AuthService.DeclineInvitation",
    "AuthService.RequestEmailVerification",
    "AuthService.VerifyEmail",
    "AuthService.RequestPasswordReset",
    "AuthService.ResetPassword",
    "BillingService.ListPlans",
}
FOREIGN = [each for service in SERVICES.values() for each in service.foreign]
DESCRIPTORS = [service.descriptor for service in SERVICES.values()] + [each.descriptor for each in FOREIGN]
ACCESS_OF_OTHERS = {
    f"{each.descriptor.full_name}.{name}": access for each in FOREIGN for name, access in each.access.items()
}
METHODS = [
    pytest.param(service, method, id=f"{service.name}.{method.name}")
    for service in DESCRIPTORS
    for method in service.methods
]


def access_of(method):
    """What an RPC's contract says, or for somebody else's contract the catalogue."""
    if method.full_name in ACCESS_OF_OTHERS:
        return ACCESS_OF_OTHERS[method.full_name]
    return method.GetOptions().Extensions[access_pb2.access]


def registration(service):
    """The generated function that registers a service's handler."""
    module = importlib.import_module(service.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    return getattr(module, f"add_{service.name}Servicer_to_server")


class Reached:
    """Stands for every handler: notes the call and answers with nothing."""

    def __init__(self):
        self.calls = 0
        for service in DESCRIPTORS:
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
        machine_token(name): Principal(
            kind=PrincipalKind.SERVICE_ACCOUNT, subject="sa", organization_id=OWN, role=role, token=machine_token(name)
        )
        for name, role in ROLES.items()
    } | {
        machine_token(f"platform {name}"): Principal(
            kind=PrincipalKind.SERVICE_ACCOUNT,
            subject="sa",
            organization_id=OTHER,
            role=access_pb2.ROLE_MEMBER,
            platform_roles=(role,),
            token=machine_token(f"platform {name}"),
        )
        for name, role in PLATFORM.items()
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
        services=[(service, registration(service), handler) for service in DESCRIPTORS],
        foreign=FOREIGN,
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
    field = access_of(method).tenant_field
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
        # Who may open a stream is decided before its first message. A message that a refusal overtakes would make
        # grpc.aio say INTERNAL by itself, so none is sent.
        answered = call(metadata=metadata) if method.client_streaming else call(request, metadata=metadata)
        if method.server_streaming:
            await answered.read()
        else:
            await answered
        code = grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        code = from_grpc(error).code
    return code, reached.calls > before


def expected(access, *, kind, role=None, platform_role=None, same_tenant=True):
    """Says in words of its own what is due to a person or a service account."""
    if access_pb2.CALLER_ANYONE in access.callers:
        return grpc.StatusCode.OK
    if kind not in access.callers:
        return grpc.StatusCode.PERMISSION_DENIED
    if access.acts_on_caller:
        return grpc.StatusCode.OK
    roles, platform_roles = MAY[access_pb2.Permission.Name(access.permission).removeprefix("PERMISSION_")]
    if platform_role in platform_roles:
        return grpc.StatusCode.OK
    if access.tenant_field and not same_tenant:
        return grpc.StatusCode.NOT_FOUND
    return grpc.StatusCode.OK if role in roles else grpc.StatusCode.PERMISSION_DENIED


def callers(access, signer):
    """Yields (what it is, authorization, tenant named, code that is due)."""
    is_open = access_pb2.CALLER_ANYONE in access.callers
    yield "anonymous", "", OWN, grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED
    for role, tenant in itertools.product(ROLES, (OWN, OTHER)):
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OWN, role=role)
        for who, bearer, kind in (
            (role, token, access_pb2.CALLER_PERSON),
            (f"service account {role}", machine_token(role), access_pb2.CALLER_SERVICE_ACCOUNT),
        ):
            due = expected(access, kind=kind, role=role, same_tenant=tenant == OWN)
            yield f"{who} to {tenant}", f"Bearer {bearer}", tenant, due
    for role, tenant in itertools.product(PLATFORM, (OWN, OTHER)):
        # A role of the operator that lacks the permission leaves a member of another organization, and nothing more.
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OTHER, role="member", platform_roles=[role])
        for who, bearer, kind in (
            (role, token, access_pb2.CALLER_PERSON),
            (f"service account {role}", machine_token(f"platform {role}"), access_pb2.CALLER_SERVICE_ACCOUNT),
        ):
            due = expected(access, kind=kind, role="member", platform_role=role, same_tenant=tenant == OTHER)
            yield f"platform {who} to {tenant}", f"Bearer {bearer}", tenant, due
    for process in NAMES:
        is_named = is_open or process in access.processes
        due = grpc.StatusCode.OK if is_named else grpc.StatusCode.PERMISSION_DENIED
        yield process, process_tokens(process).bearer("matrix"), OWN, due


@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_who_may_call(reached, signer, service, method):
    access = access_of(method)
    for who, authorization, tenant, due in callers(access, signer):
        code, was_reached = await outcome(reached, service, method, authorization, tenant)
        assert (who, code) == (who, due)
        assert was_reached == (due == grpc.StatusCode.OK), who


def test_a_permission_has_a_row_in_the_table_above_and_a_role_that_holds_it():
    named = {name.removeprefix("PERMISSION_") for name in access_pb2.Permission.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    assert set(MAY) == named
    assert all(roles or platform_roles for roles, platform_roles in MAY.values())
    assert {role for _, roles in MAY.values() for role in roles} <= set(PLATFORM)


def test_what_anyone_may_call_is_written_down_twice():
    found = {
        f"{service.name}.{method.name}"
        for service in DESCRIPTORS
        for method in service.methods
        if access_pb2.CALLER_ANYONE in access_of(method).callers
    }
    assert found == OPEN_TO_ANYONE
