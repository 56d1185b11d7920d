import asyncio
import dataclasses
from datetime import UTC, datetime
from uuid import UUID

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.options.v1 import access_pb2

from contract.services import AUTH, SERVICES
from mesh.clock import ManualClock
from mesh.ids import SequenceIds
from mesh.rpc import access
from mesh.rpc.access import Principal, PrincipalKind
from mesh.rpc.client import service_config
from mesh.rpc.errors import InvalidFields, Unavailable
from mesh.rpc.tokens import SESSION_SECONDS, SessionSigner
from tests.support.machine_tokens import machine_token
from tests.support.processes import PROCESS_KEYS

OWN, OTHER = UUID(int=1), UUID(int=2)
MACHINE = machine_token("1")
RULES = access.AccessRules(service.descriptor for service in SERVICES.values())
LIST_KEYS = RULES.find("/tollway.auth.v1.AuthService/ListApiKeys")


def person(role=access_pb2.ROLE_MEMBER, organization_id=OWN, platform_roles=()):
    return Principal(
        kind=PrincipalKind.PERSON,
        subject="someone",
        organization_id=organization_id,
        role=role,
        platform_roles=platform_roles,
    )


def test_every_rpc_of_the_contract_has_a_rule():
    for service in (each.descriptor for each in SERVICES.values()):
        for method in service.methods:
            assert RULES.find(f"/{service.full_name}/{method.name}").callers


def test_an_rpc_without_access_option_is_refused_by_name():
    file = descriptor_pb2.FileDescriptorProto(name="bare.proto", package="bare", syntax="proto3")
    file.message_type.add(name="Nothing")
    method = file.service.add(name="Bare").method.add(name="Call")
    method.input_type = method.output_type = ".bare.Nothing"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(access.RuleMissing, match=r"bare\.Bare\.Call has no"):
        access.AccessRules([pool.FindServiceByName("bare.Bare")])


def test_an_rpc_of_somebody_elses_contract_needs_a_rule_in_the_catalogue():
    (foreign,) = AUTH.foreign
    with pytest.raises(access.RuleMissing, match=r"envoy\.service\.auth\.v3\.Authorization\.Check has no"):
        access.AccessRules([foreign.descriptor])
    bare = dataclasses.replace(foreign, access={})
    with pytest.raises(access.RuleMissing, match="has no rule in the catalogue"):
        access.AccessRules([foreign.descriptor], [bare])
    rule = access.AccessRules([foreign.descriptor], [foreign]).find("/envoy.service.auth.v3.Authorization/Check")
    assert rule.is_foreign
    assert rule.permission == access_pb2.PERMISSION_KEYS_CHECK


def test_a_gateway_of_the_operators_checks_keys_and_does_nothing_else():
    held = [
        name
        for name, number in access_pb2.Permission.items()
        if number and access.platform_role_has([access_pb2.PLATFORM_ROLE_GATEWAY], number)
    ]
    assert held == ["PERMISSION_KEYS_CHECK"]


def test_own_tenant_with_the_role_passes():
    access.authorize(LIST_KEYS, person(), auth.ListApiKeysRequest(organization_id=str(OWN)))


def test_another_tenant_is_not_found():
    with pytest.raises(access.OrganizationNotFound):
        access.authorize(LIST_KEYS, person(access_pb2.ROLE_OWNER), auth.ListApiKeysRequest(organization_id=str(OTHER)))


def test_a_missing_role_in_the_own_tenant_is_denied_and_names_the_permission():
    rule = RULES.find("/tollway.billing.v1.BillingService/PreviewInvoice")
    with pytest.raises(access.RoleInsufficient) as refused:
        access.authorize(rule, person(), auth.ListApiKeysRequest(organization_id=str(OWN)))
    assert refused.value.metadata == {"permission": "BILLING_READ"}


def test_support_reads_every_tenant_and_writes_none():
    support = person(organization_id=OTHER, platform_roles=(access_pb2.PLATFORM_ROLE_SUPPORT,))
    access.authorize(LIST_KEYS, support, auth.ListApiKeysRequest(organization_id=str(OWN)))
    create = RULES.find("/tollway.auth.v1.AuthService/CreateApiKey")
    with pytest.raises(access.OrganizationNotFound):
        access.authorize(create, support, auth.CreateApiKeyRequest(organization_id=str(OWN)))


def test_nobody_is_unauthenticated_and_a_wrong_id_is_named():
    with pytest.raises(access.CredentialsMissing):
        access.authorize(LIST_KEYS, access.ANYONE, auth.ListApiKeysRequest(organization_id=str(OWN)))
    with pytest.raises(InvalidFields) as refused:
        access.authorize(LIST_KEYS, person(), auth.ListApiKeysRequest(organization_id="7"))
    assert refused.value.violations[0].field == "organization_id"


def test_only_the_named_process_may_call():
    rule = RULES.find("/tollway.metering.v1.MeteringService/Ingest")
    access.authorize(rule, Principal(kind=PrincipalKind.PROCESS, subject="edge_proxy"), None)
    for caller in (Principal(kind=PrincipalKind.PROCESS, subject="billing"), person(access_pb2.ROLE_OWNER)):
        with pytest.raises(access.CallerNotAllowed):
            access.authorize(rule, caller, None)


def test_a_process_names_a_tenant_properly_too():
    rule = RULES.find("/tollway.billing.v1.BillingService/CreateSubscription")
    cli = Principal(kind=PrincipalKind.PROCESS, subject="cli")
    access.authorize(rule, cli, billing.CreateSubscriptionRequest(organization_id=str(OWN)))
    for wrong in ("", "7", "\u0661" * 33):
        with pytest.raises(InvalidFields):
            access.authorize(rule, cli, billing.CreateSubscriptionRequest(organization_id=wrong))


def test_health_needs_no_rule():
    assert RULES.find("/grpc.health.v1.Health/Check") is None


class Auth:
    """What a verifier asks `auth` for."""

    def __init__(self, clock):
        self.signer = SessionSigner(seed=bytes(32), clock=clock, ids=SequenceIds())
        self.jwks_calls = 0
        self.resolve_calls = 0
        self.accounts = {}

    async def fetch_jwks(self):
        self.jwks_calls += 1
        await asyncio.sleep(0)
        return self.signer.jwks_json()

    async def resolve(self, token):
        self.resolve_calls += 1
        return self.accounts.get(token)


@pytest.fixture
def clock():
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def auth_side(clock):
    return Auth(clock)


@pytest.fixture
def verifier(clock, auth_side):
    return access.Verifier(
        process_keys=PROCESS_KEYS,
        audience="metering",
        fetch_jwks=auth_side.fetch_jwks,
        resolve_service_account=auth_side.resolve,
        clock=clock,
    )


async def test_a_session_token_becomes_its_person(verifier, auth_side):
    token, expire_time = auth_side.signer.issue(
        person_id=UUID(int=9), organization_id=OWN, role="admin", platform_roles=["support"]
    )
    principal = await verifier.principal(f"Bearer {token}")
    assert (principal.subject, principal.organization_id) == (str(UUID(int=9)), OWN)
    assert principal.role == access_pb2.ROLE_ADMIN
    assert principal.platform_roles == (access_pb2.PLATFORM_ROLE_SUPPORT,)
    assert 0 < (expire_time - datetime.now(UTC)).total_seconds() <= SESSION_SECONDS
    await verifier.principal(f"Bearer {token}")
    assert auth_side.jwks_calls == 1


async def test_a_token_of_another_signer_is_refused_and_does_not_flood_auth(verifier, auth_side, clock):
    stranger = SessionSigner(seed=b"\1" * 32, clock=clock, ids=SequenceIds())
    token, _ = stranger.issue(person_id=OWN, organization_id=OWN, role="owner")
    for _ in range(5):
        with pytest.raises(access.CredentialsInvalid):
            await verifier.principal(f"Bearer {token}")
    assert auth_side.jwks_calls == 1


async def test_tokens_of_unknown_signers_that_come_together_ask_auth_once(verifier, auth_side, clock):
    stranger = SessionSigner(seed=b"\1" * 32, clock=clock, ids=SequenceIds())
    token, _ = stranger.issue(person_id=OWN, organization_id=OWN, role="owner")
    answers = await asyncio.gather(*(verifier.principal(f"Bearer {token}") for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {access.CredentialsInvalid}
    assert auth_side.jwks_calls == 1


async def test_a_flood_asks_an_auth_that_hangs_once_at_a_time_and_once_a_second(clock):
    asked, release = [], asyncio.Event()

    async def hangs():
        asked.append(clock.monotonic())
        await release.wait()
        raise Unavailable

    verifier = access.Verifier(
        process_keys=PROCESS_KEYS, audience="metering", fetch_jwks=hangs, resolve_service_account=hangs, clock=clock
    )
    token, _ = SessionSigner(seed=bytes(32), clock=clock, ids=SequenceIds()).issue(
        person_id=OWN, organization_id=OWN, role="owner"
    )
    waiting = [asyncio.ensure_future(verifier.principal(f"Bearer {token}")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    release.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    # Whoever could not find out says so; nobody's token is called invalid.
    assert {type(answer) for answer in answers[1:]} == {access.VerifierUnavailable}
    assert len(asked) == 1
    clock.advance(access.JWKS_REFETCH_SECONDS_MIN)
    with pytest.raises(access.VerifierUnavailable):
        await verifier.principal(f"Bearer {token}")
    assert len(asked) == 2


async def test_keys_that_are_published_or_gone_are_noticed_without_a_token_that_needs_them(verifier, auth_side, clock):
    token, _ = auth_side.signer.issue(person_id=OWN, organization_id=OWN, role="owner")
    await verifier.principal(f"Bearer {token}")
    auth_side.signer = SessionSigner(seed=b"\1" * 32, clock=clock, ids=SequenceIds())
    clock.advance(access.KEYS_FRESH_SECONDS - 1)
    await verifier.principal(f"Bearer {token}")
    assert auth_side.jwks_calls == 1
    clock.advance(1)
    # Whoever notices does not wait, and many who do ask once.
    await asyncio.gather(*(verifier.principal(f"Bearer {token}") for _ in range(20)))
    while verifier._refreshing is not None:
        await verifier._refreshing
    assert auth_side.jwks_calls == 2
    with pytest.raises(access.CredentialsInvalid):
        await verifier.principal(f"Bearer {token}")


async def test_known_keys_stay_good_while_auth_is_away(verifier, auth_side, clock):
    async def away():
        raise Unavailable

    token, _ = auth_side.signer.issue(person_id=OWN, organization_id=OWN, role="owner")
    await verifier.principal(f"Bearer {token}")
    verifier._fetch_jwks = away
    clock.advance(access.KEYS_FRESH_SECONDS)
    for _ in range(3):
        assert (await verifier.principal(f"Bearer {token}")).subject == str(OWN)
        while verifier._refreshing is not None:
            await verifier._refreshing


async def test_an_expired_session_is_refused(verifier):
    past = ManualClock(datetime(2020, 1, 1, tzinfo=UTC))
    token, _ = SessionSigner(seed=bytes(32), clock=past, ids=SequenceIds()).issue(
        person_id=OWN, organization_id=OWN, role="owner"
    )
    with pytest.raises(access.CredentialsInvalid):
        await verifier.principal(f"Bearer {token}")


async def test_a_service_account_is_asked_for_once_a_second(verifier, auth_side, clock):
    auth_side.accounts[MACHINE] = person()
    for _ in range(3):
        assert await verifier.principal(f"Bearer {MACHINE}") == person()
    assert auth_side.resolve_calls == 1
    del auth_side.accounts[MACHINE]
    clock.advance(access.SERVICE_ACCOUNT_CACHE_SECONDS)
    with pytest.raises(access.CredentialsInvalid):
        await verifier.principal(f"Bearer {MACHINE}")


async def test_a_token_that_cannot_exist_is_refused_without_asking(verifier, auth_side):
    for wrong in (
        MACHINE[:-1],
        MACHINE.upper(),
        MACHINE[:-1] + ("0" if MACHINE[-1] != "0" else "1"),
        "tw_sa_1",
        "tw_sa_ü",
    ):
        auth_side.accounts[wrong] = person()
        with pytest.raises(access.CredentialsInvalid):
            await verifier.principal(f"Bearer {wrong}")
    assert auth_side.resolve_calls == 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_schemes_case_does_not_matter(verifier, auth_side, scheme):
    auth_side.accounts[MACHINE] = person()
    assert await verifier.principal(f"{scheme} {MACHINE}") == person()
    token, _ = auth_side.signer.issue(person_id=UUID(int=9), organization_id=OWN, role="admin")
    assert (await verifier.principal(f"{scheme} {token}")).subject == str(UUID(int=9))


@pytest.mark.parametrize("authorization", ["Basic abc", "Bearer ", "Bearer", "Bearer x.y.z", "nonsense", "Bearerx.y.z"])
async def test_other_credentials_are_refused(verifier, authorization):
    with pytest.raises(access.CredentialsInvalid):
        await verifier.principal(authorization)


async def test_no_credentials_are_anyone(verifier):
    assert await verifier.principal(None) is access.ANYONE


async def test_auth_away_is_unavailable_not_refused(clock):
    async def away(*_):
        raise Unavailable

    verifier = access.Verifier(
        process_keys=PROCESS_KEYS, audience="metering", fetch_jwks=away, resolve_service_account=away, clock=clock
    )
    token, _ = SessionSigner(seed=bytes(32), clock=clock, ids=SequenceIds()).issue(
        person_id=OWN, organization_id=OWN, role="owner"
    )
    for authorization in (f"Bearer {token}", f"Bearer {MACHINE}"):
        with pytest.raises(access.VerifierUnavailable):
            await verifier.principal(authorization)


def test_only_idempotent_unary_rpcs_are_retried():
    methods = {
        entry["name"][0]["method"]: entry for entry in service_config(SERVICES["auth"].descriptor)["methodConfig"]
    }
    assert "retryPolicy" in methods["GetJwks"]
    assert "retryPolicy" not in methods["CreateSession"]
    assert "retryPolicy" not in methods["WatchKeys"]
