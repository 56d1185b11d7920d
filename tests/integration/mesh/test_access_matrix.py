"""Authorization as one matrix: every RPC of the contract, every kind of caller, over real connections.

The handlers only note that they were reached, so a refusal also shows that nothing was read or written. Who holds what
is written down here a second time, as the role table of the design has it, and not read from the descriptors: a grant
that is widened by mistake has to be widened twice. An RPC that is added later needs a line in `ACTIONS`.
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
from mesh.rpc.access import Principal, PrincipalKind, Verifier, read_rule
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
EVERYBODY, MANAGERS = {"owner", "admin", "member"}, {"owner", "admin"}
MAY: dict[str, tuple[set[str], set[str]]] = {
    # Action: roles in the own organization, roles of the operator's people.
    "view dashboard": (EVERYBODY, {"admin", "support"}),
    "create keys": (EVERYBODY, {"admin"}),
    # Members only their own: `test_members_revoke_their_own_keys_and_no_others`.
    "revoke keys": (EVERYBODY, {"admin"}),
    "view billing": (MANAGERS, {"admin", "support"}),
    "change plan, pay": ({"owner"}, {"admin"}),
    "read the audit log": (MANAGERS, {"admin", "support"}),
    "see what was not billed": (set(), {"admin", "support"}),
    "bill it after all, or drop it": (set(), {"admin"}),
    # Invitations above one's own role, and removing owners and admins: rules of their own, tests of their own.
    "invite, see invitations": (MANAGERS, {"admin"}),
    "remove members": (MANAGERS, {"admin"}),
    "see members": (EVERYBODY, {"admin", "support"}),
    "leave": (EVERYBODY, {"admin", "support"}),
    "change roles": ({"owner"}, {"admin"}),
    "change the organization": (MANAGERS, {"admin"}),
    "delete the organization": ({"owner"}, {"admin"}),
    "see service accounts": (MANAGERS, {"admin", "support"}),
    "manage service accounts": (MANAGERS, {"admin"}),
    "change keys": (EVERYBODY, {"admin"}),
    "import keys": (MANAGERS, {"admin"}),
    "see the installation": (set(), {"admin", "support"}),
    "run the installation": (set(), {"admin"}),
}
ACTIONS = {
    "AuthService.CreateApiKey": "create keys",
    "AuthService.RevokeApiKey": "revoke keys",
    "AuthService.ListApiKeys": "view dashboard",
    "AuthService.GetApiKey": "view dashboard",
    "AuthService.BatchGetApiKeys": "view dashboard",
    "AuthService.GetOrganization": "view dashboard",
    "AuthService.ListAuditEntries": "read the audit log",
    "AuthService.ExportAuditEntries": "read the audit log",
    "AuthService.UpdateOrganization": "change the organization",
    "AuthService.DeleteOrganization": "delete the organization",
    "AuthService.SuspendOrganization": "run the installation",
    "AuthService.ResumeOrganization": "run the installation",
    "AuthService.InviteMember": "invite, see invitations",
    "AuthService.ListInvitations": "invite, see invitations",
    "AuthService.CancelInvitation": "invite, see invitations",
    "AuthService.ResendInvitation": "invite, see invitations",
    "AuthService.ListMembers": "see members",
    "AuthService.ChangeMemberRole": "change roles",
    "AuthService.RemoveMember": "remove members",
    "AuthService.LeaveOrganization": "leave",
    "AuthService.CreateServiceAccount": "manage service accounts",
    "AuthService.UpdateServiceAccount": "manage service accounts",
    "AuthService.RotateServiceAccount": "manage service accounts",
    "AuthService.RevokeServiceAccount": "manage service accounts",
    "AuthService.GetServiceAccount": "see service accounts",
    "AuthService.ListServiceAccounts": "see service accounts",
    "AuthService.UpdateApiKey": "change keys",
    "AuthService.RotateApiKey": "create keys",
    "AuthService.ImportApiKeys": "import keys",
    "AuthService.ProvisionOrganization": "run the installation",
    "AuthService.ListOrganizations": "see the installation",
    "AuthService.ExportPerson": "run the installation",
    "AuthService.ErasePerson": "run the installation",
    "AuthService.RotateSigningKey": "run the installation",
    "RateLimitService.GetPolicy": "view dashboard",
    "MeteringService.QueryUsage": "view dashboard",
    "MeteringService.ListDeadLetters": "see what was not billed",
    "MeteringService.GetDeadLetter": "see what was not billed",
    "MeteringService.ReplayDeadLetters": "bill it after all, or drop it",
    "MeteringService.DropDeadLetters": "bill it after all, or drop it",
    "BillingService.CreateSubscription": "change plan, pay",
    "BillingService.PreviewInvoice": "view billing",
}
PROCESSES = {
    "AuthService.ResolveKeys": {"edge_proxy"},
    "AuthService.WatchKeys": {"edge_proxy"},
    "AuthService.ResolveServiceAccount": {"ratelimit", "metering", "billing", "notification", "graphql_gateway"},
    "AuthService.WatchPrincipals": {"ratelimit", "metering", "billing", "notification", "graphql_gateway"},
    "AuthService.SetOrganizationState": {"billing"},
    "AuthService.AppendAuditEntries": {"ratelimit", "metering", "billing", "notification", "cli"},
    "RateLimitService.Decide": {"edge_proxy"},
    "RateLimitService.PutPolicy": {"billing", "cli"},
    "MeteringService.Ingest": {"edge_proxy"},
    "MeteringService.QueryUsage": {"billing", "ratelimit"},
    "BillingService.CreateSubscription": {"cli"},
    "NotificationService.SendEmail": {"auth", "billing", "metering"},
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
# What belongs to the caller alone, so that no role is asked for; the second set is open to service accounts as well.
OF_ONESELF = {
    "AuthService.CreateOrganization",
    "AuthService.ListMyInvitations",
    "AuthService.AcceptInvitation",
    "AuthService.ChangePassword",
    "AuthService.RequestEmailChange",
    "AuthService.UpdateProfile",
    "AuthService.ExportMe",
    "AuthService.EraseMe",
    "AuthService.SwitchOrganization",
    "AuthService.ListSessions",
    "AuthService.RevokeSession",
    "AuthService.RevokeAllSessions",
    "AuthService.BeginTotpEnrollment",
    "AuthService.ConfirmTotpEnrollment",
    "AuthService.DisableTotp",
    "AuthService.RegenerateRecoveryCodes",
}
OF_ONESELF_OR_A_SERVICE_ACCOUNT = {"AuthService.GetMe"}
PEOPLE_ONLY = {"AuthService.LeaveOrganization"}
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


def expected(name, *, may, same_tenant=True):
    """Says in words of its own what is due to a person or service account."""
    if name in OPEN_TO_ANYONE | OF_ONESELF | OF_ONESELF_OR_A_SERVICE_ACCOUNT:
        return grpc.StatusCode.OK
    if name not in ACTIONS:
        return grpc.StatusCode.PERMISSION_DENIED
    if not same_tenant:
        return grpc.StatusCode.NOT_FOUND
    return grpc.StatusCode.OK if may else grpc.StatusCode.PERMISSION_DENIED


def callers(name, signer, *, names_a_tenant):
    """Yields (what it is, authorization, tenant named, code that is due)."""
    roles, platform_roles = MAY[ACTIONS[name]] if name in ACTIONS else (set(), set())
    is_open = name in OPEN_TO_ANYONE
    yield "anonymous", "", OWN, grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED
    for role, tenant in itertools.product(ROLES, (OWN, OTHER)):
        due = expected(name, may=role in roles, same_tenant=tenant == OWN or not names_a_tenant)
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OWN, role=role)
        yield f"{role} to {tenant}", f"Bearer {token}", tenant, due
        if name in OF_ONESELF | PEOPLE_ONLY:
            due = grpc.StatusCode.PERMISSION_DENIED
        yield f"service account {role} to {tenant}", f"Bearer tw_sa_{role}", tenant, due
    for role in PLATFORM:
        token, _ = signer.issue(person_id=UUID(int=9), organization_id=OTHER, role="member", platform_roles=[role])
        # A role of the operator that lacks the permission leaves a member of another organization, and nothing more.
        due = expected(name, may=role in platform_roles, same_tenant=role in platform_roles or not names_a_tenant)
        yield f"platform {role}", f"Bearer {token}", OWN, due
    for process in ("edge_proxy", "ratelimit", "metering", "billing", "notification", "auth", "cli", "graphql_gateway"):
        is_named = is_open or process in PROCESSES.get(name, ())
        due = grpc.StatusCode.OK if is_named else grpc.StatusCode.PERMISSION_DENIED
        yield process, process_tokens(process).bearer("matrix"), OWN, due


@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_who_may_call(reached, signer, service, method):
    name = f"{service.name}.{method.name}"
    tables = (ACTIONS, PROCESSES, OPEN_TO_ANYONE, OF_ONESELF, OF_ONESELF_OR_A_SERVICE_ACCOUNT)
    assert any(name in table for table in tables), f"say in one of the tables above who may call {name}"
    names_a_tenant = bool(read_rule(method).tenant_field)
    for who, authorization, tenant, due in callers(name, signer, names_a_tenant=names_a_tenant):
        code, was_reached = await outcome(reached, service, method, authorization, tenant)
        assert (who, code) == (who, due)
        assert was_reached == (due == grpc.StatusCode.OK), who
