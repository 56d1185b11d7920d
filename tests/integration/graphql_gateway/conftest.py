"""The gateway on a real port, in front of real gRPC servers whose handlers are fakes that remember what they saw."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import uvloop
from aiohttp import web
from google.protobuf.descriptor import ServiceDescriptor
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.auth.v1.auth_service_pb2_grpc import AuthServiceServicer, add_AuthServiceServicer_to_server
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.billing.v1.billing_service_pb2_grpc import BillingServiceServicer, add_BillingServiceServicer_to_server
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.metering.v1.metering_service_pb2_grpc import (
    MeteringServiceServicer,
    add_MeteringServiceServicer_to_server,
)
from tollway.options.v1 import access_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit
from tollway.ratelimit.v1.ratelimit_service_pb2_grpc import (
    RateLimitServiceServicer,
    add_RateLimitServiceServicer_to_server,
)

from graphql_gateway.app import build_gateway
from graphql_gateway.config import GatewaySettings
from graphql_gateway.entrance.connections import EntranceSite
from graphql_gateway.rest.routes import services as described_services
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Principal, PrincipalKind, Verifier, current_principal
from mesh.rpc.client import Clients
from mesh.rpc.errors import FailedPrecondition, NotFound, Unauthenticated, Violations
from mesh.rpc.principals import Principals
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from tests.support.machine_tokens import machine_token
from tests.support.processes import PROCESS_KEYS, process_fields

ACME = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
OWNER = UUID("01890a5d-ac96-774b-bcce-b302099a8059")
MEMBER = UUID("01890a5d-ac96-774b-bcce-b302099a8060")
SERVICE_ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8061")
SERVICE_ACCOUNT_TOKEN = machine_token("gateway")
PASSWORD = "correct horse battery staple"
REFRESH_TOKEN = "a refresh token"
KEYS = tuple(UUID(int=ACME.int + 100 + number) for number in range(5))
CREATE_SECONDS = 1_760_000_000


class ApiKeyNotFound(NotFound):
    """There is no such API key."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production: its transports differ from asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


class PasswordWrong(Unauthenticated):
    """The address or the password is wrong."""


class KeyLimitReached(FailedPrecondition):
    """There are as many keys as there may be."""


@dataclasses.dataclass(slots=True)
class Seen:
    """What the fakes were called with."""

    calls: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    principals: list[Principal] = dataclasses.field(default_factory=list)
    gate: asyncio.Event | None = None
    """Where set, plans are listed only once it is open."""

    def note(self, request: Any, context: Any) -> None:
        self.calls.append((type(request).DESCRIPTOR.name.removesuffix("Request"), request))
        self.principals.append(current_principal())

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def last(self) -> Any:
        return self.calls[-1][1]


def api_key(organization_id: UUID, key_id: UUID, name: str = "key") -> auth.ApiKey:
    key = auth.ApiKey(
        api_key_id=str(key_id),
        organization_id=str(organization_id),
        name=name,
        hint="sk_live_1a2b…9f0e",
        mode=auth.KEY_MODE_LIVE,
        scopes=["read"],
        creator_id=str(OWNER),
    )
    key.create_time.FromSeconds(CREATE_SECONDS)
    return key


class RefreshRefused(Unauthenticated):
    """This refresh token is not valid."""


class FakeAuth(AuthServiceServicer):
    def __init__(self, seen: Seen, signer: SessionSigner) -> None:
        self.seen = seen
        self.signer = signer

    async def CreateSession(self, request: Any, context: Any) -> auth.CreateSessionResponse:
        self.seen.note(request, context)
        if request.password != PASSWORD:
            raise PasswordWrong
        organization = UUID(request.organization_id) if request.organization_id else ACME
        token, expire_time = self.signer.issue(person_id=OWNER, organization_id=organization, role="owner")
        answer = auth.CreateSessionResponse(
            access_token=token,
            organization_id=str(organization),
            person_id=str(OWNER),
            role=access_pb2.ROLE_OWNER,
        )
        answer.expire_time.FromDatetime(expire_time)
        return answer

    async def RefreshSession(self, request: Any, context: Any) -> auth.CreateSessionResponse:
        self.seen.note(request, context)
        if request.refresh_token != REFRESH_TOKEN:
            raise RefreshRefused
        return auth.CreateSessionResponse(access_token="a", refresh_token="b")

    async def GetJwks(self, request: Any, context: Any) -> auth.GetJwksResponse:
        return auth.GetJwksResponse(jwks_json=self.signer.jwks_json())

    async def ResolveServiceAccount(self, request: Any, context: Any) -> auth.ResolveServiceAccountResponse:
        if request.token != SERVICE_ACCOUNT_TOKEN:
            return auth.ResolveServiceAccountResponse(valid=False)
        return auth.ResolveServiceAccountResponse(
            valid=True,
            service_account_id=str(SERVICE_ACCOUNT),
            organization_id=str(ACME),
            role=access_pb2.ROLE_ADMIN,
        )

    async def GetOrganization(self, request: Any, context: Any) -> auth.Organization:
        self.seen.note(request, context)
        organization = auth.Organization(
            organization_id=request.organization_id,
            name="Acme",
            state=auth.ORGANIZATION_STATE_ACTIVE,
            contact_email="contact@acme.example",
            billing_email="billing@acme.example",
            currency_code="USD",
            time_zone="Europe/Vienna",
            metadata={"tier": "gold"},
        )
        organization.create_time.FromSeconds(CREATE_SECONDS)
        return organization

    async def ListApiKeys(self, request: Any, context: Any) -> auth.ListApiKeysResponse:
        self.seen.note(request, context)
        start = int(request.page_token or "0")
        end = min(len(KEYS), start + (request.page_size or 50))
        listed = [api_key(UUID(request.organization_id), key_id, f"key {key_id}") for key_id in KEYS[start:end]]
        return auth.ListApiKeysResponse(api_keys=listed, next_page_token=str(end) if end < len(KEYS) else "")

    async def GetApiKey(self, request: Any, context: Any) -> auth.ApiKey:
        self.seen.note(request, context)
        key_id = UUID(request.api_key_id)
        if key_id not in KEYS:
            raise ApiKeyNotFound
        return api_key(UUID(request.organization_id), key_id, f"key {key_id}")

    async def BatchGetApiKeys(self, request: Any, context: Any) -> auth.BatchGetApiKeysResponse:
        self.seen.note(request, context)
        organization_id = UUID(request.organization_id)
        wanted = [key_id for key_id in map(UUID, request.api_key_ids) if key_id in KEYS]
        return auth.BatchGetApiKeysResponse(
            api_keys=[api_key(organization_id, key_id, f"key {key_id}") for key_id in wanted]
        )

    async def CreateApiKey(self, request: Any, context: Any) -> auth.CreateApiKeyResponse:
        self.seen.note(request, context)
        violations = Violations()
        violations.check(bool(request.name), "name", "must be 1 to 100 characters")
        violations.check(len(request.allowed_ips) < 3, "allowed_ips", "must be at most 2")
        violations.raise_if_any()
        if request.name == "one too many":
            raise KeyLimitReached(metadata={"limit": "5"})
        if request.name == "crash":
            raise ValueError("secret words of the implementation")
        key = api_key(UUID(request.organization_id), KEYS[0], request.name)
        return auth.CreateApiKeyResponse(api_key=key, secret="sk_live_" + "a" * 64)

    async def RevokeApiKey(self, request: Any, context: Any) -> auth.ApiKey:
        self.seen.note(request, context)
        key = api_key(UUID(request.organization_id), UUID(request.api_key_id))
        key.revoke_time.FromSeconds(CREATE_SECONDS + 60)
        return key

    async def ListAuditEntries(self, request: Any, context: Any) -> auth.ListAuditEntriesResponse:
        self.seen.note(request, context)
        entry = auth.AuditEntry(
            audit_entry_id=str(KEYS[0]),
            organization_id=request.organization_id,
            actor=str(OWNER),
            action="api_key.create",
            resource=f"api_key/{KEYS[0]}",
        )
        entry.details.update({"name": "key", "scopes": ["read"]})
        entry.create_time.FromSeconds(CREATE_SECONDS)
        return auth.ListAuditEntriesResponse(audit_entries=[entry])


class FakeMetering(MeteringServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def QueryUsage(self, request: Any, context: Any) -> metering.QueryUsageResponse:
        self.seen.note(request, context)
        by_key = metering.DIMENSION_API_KEY in request.group_by
        rows = []
        for number, key_id in enumerate(KEYS[:3], 1):
            row = metering.UsageRow(
                group=[str(key_id)] if by_key else [],
                request_count=number * 10,
                billable_count=number * 9,
                billable_units=f"{number}.1",
                test_count=number,
            )
            row.start_time.CopyFrom(request.start_time)
            rows.append(row)
        return metering.QueryUsageResponse(rows=rows)


class FakeBilling(BillingServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def ListPlans(self, request: Any, context: Any) -> billing.ListPlansResponse:
        self.seen.note(request, context)
        if self.seen.gate is not None:
            await self.seen.gate.wait()
        starter = billing.Plan(
            plan_id="starter",
            name="Starter",
            version=1,
            base_fee=billing.Money(amount_minor=1_000, currency_code="USD"),
            included_requests=10_000,
            overage_unit_price="0.01",
            requests_per_minute=60,
        )
        return billing.ListPlansResponse(plans=[starter])

    async def CreateSubscription(self, request: Any, context: Any) -> billing.Subscription:
        self.seen.note(request, context)
        subscription = billing.Subscription(
            subscription_id=str(KEYS[1]),
            organization_id=request.organization_id,
            plan_id=request.plan_id,
            plan_version=1,
        )
        subscription.start_time.FromSeconds(CREATE_SECONDS)
        return subscription

    async def PreviewInvoice(self, request: Any, context: Any) -> billing.InvoicePreview:
        self.seen.note(request, context)
        usd = "USD"
        preview = billing.InvoicePreview(
            organization_id=request.organization_id,
            plan_id="starter",
            lines=[
                billing.InvoiceLine(
                    description="Starter",
                    quantity="1",
                    unit_price="10.00",
                    amount=billing.Money(amount_minor=1_000, currency_code=usd),
                ),
                billing.InvoiceLine(
                    description="Requests above 10,000",
                    quantity="5000",
                    unit_price="0.01",
                    amount=billing.Money(amount_minor=5_000, currency_code=usd),
                ),
            ],
            total=billing.Money(amount_minor=6_000, currency_code=usd),
            billable_units=15_000,
        )
        preview.period_start_time.FromSeconds(CREATE_SECONDS)
        preview.period_end_time.FromSeconds(CREATE_SECONDS + 86_400)
        return preview


class FakeRateLimit(RateLimitServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def GetPolicy(self, request: Any, context: Any) -> ratelimit.Policy:
        self.seen.note(request, context)
        burst = ratelimit.Window(
            name="burst",
            kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET,
            limit=60,
            period_seconds=60,
            scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
        )
        return ratelimit.Policy(organization_id=request.organization_id, version=3, windows=[burst])


@dataclasses.dataclass(slots=True, kw_only=True)
class Backend:
    """The fakes behind one gRPC server."""

    server: Server
    seen: Seen
    signer: SessionSigner

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def token(
        self,
        *,
        organization_id: UUID = ACME,
        role: str = "owner",
        person_id: UUID = OWNER,
        platform: tuple[str, ...] = (),
    ) -> str:
        token, _ = self.signer.issue(
            person_id=person_id, organization_id=organization_id, role=role, platform_roles=platform
        )
        return token


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """All services, faked, on one real server with the real interceptors."""
    seen, clock, ids = Seen(), SystemClock(), RandomIds()
    signer = SessionSigner(seed=bytes(range(32)), clock=clock, ids=ids)
    fake_auth = FakeAuth(seen, signer)

    async def fetch_jwks() -> str:
        return signer.jwks_json()

    async def resolve(token: str) -> Principal | None:
        if token != SERVICE_ACCOUNT_TOKEN:
            return None
        return Principal(
            kind=PrincipalKind.SERVICE_ACCOUNT,
            subject=str(SERVICE_ACCOUNT),
            organization_id=ACME,
            role=access_pb2.ROLE_ADMIN,
            token=token,
        )

    def named(module: Any, name: str) -> ServiceDescriptor:
        return module.DESCRIPTOR.services_by_name[name]

    server = await Server.start(
        name="fakes",
        listen="127.0.0.1:0",
        services=[
            (named(auth, "AuthService"), add_AuthServiceServicer_to_server, fake_auth),
            (named(metering, "MeteringService"), add_MeteringServiceServicer_to_server, FakeMetering(seen)),
            (named(billing, "BillingService"), add_BillingServiceServicer_to_server, FakeBilling(seen)),
            (named(ratelimit, "RateLimitService"), add_RateLimitServiceServicer_to_server, FakeRateLimit(seen)),
        ],
        verifier=Verifier(
            process_keys=PROCESS_KEYS,
            audience="auth",
            fetch_jwks=fetch_jwks,
            resolve_service_account=resolve,
            clock=clock,
        ),
        clock=clock,
        ids=ids,
    )
    yield Backend(server=server, seen=seen, signer=signer)
    await server.stop(0)


@dataclasses.dataclass(slots=True, kw_only=True)
class RunningGateway:
    """A gateway and an HTTP client for it."""

    url: str
    session: aiohttp.ClientSession

    async def graphql(
        self, query: str, *, token: str = "", variables: dict[str, Any] | None = None, **headers: str
    ) -> dict[str, Any]:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body = {"query": query, "variables": variables or {}}
        async with self.session.post(f"{self.url}/graphql", json=body, headers=headers) as response:
            assert response.content_type == "application/json", await response.text()
            return await response.json()

    async def rest(
        self, method: str, path: str, *, token: str = "", headers: dict[str, str] | None = None, **arguments: Any
    ) -> tuple[int, dict[str, Any], Any]:
        sent = {"Authorization": f"Bearer {token}", **(headers or {})} if token else headers
        async with self.session.request(method, f"{self.url}{path}", headers=sent, **arguments) as response:
            return response.status, await response.json(content_type=None), response.headers


StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def start_gateway() -> AsyncIterator[StartGateway]:
    """Starts gateways: `await start_gateway(address, **settings)`."""
    closers: list[Callable[[], Awaitable[None]]] = []

    async def start(
        address: str,
        *,
        described: list[ServiceDescriptor] | None = None,
        settings_class: type[GatewaySettings] = GatewaySettings,
        monotonic: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> RunningGateway:
        names = ("auth", "ratelimit", "metering", "billing", "notification")
        addresses = {f"{name}_address": address for name in names}
        configured = settings_class(**process_fields("graphql_gateway"), **{**addresses, **settings})
        clients = Clients(configured, process="graphql_gateway")
        gateway = build_gateway(
            configured,
            services=described_services() if described is None else described,
            principals=clients.verifier(SystemClock(), Principals.of_tokens_alone(SystemClock())),
            ids=RandomIds(),
            monotonic=monotonic,
        )
        runner = web.AppRunner(gateway.app)
        await runner.setup()
        site = EntranceSite(
            runner,
            host="127.0.0.1",
            port=0,
            limits=configured.entrance_limits(),
            trusted_proxies=configured.gateway_trusted_proxies,
            ids=RandomIds(),
            hsts=configured.production,
        )
        await site.start()
        session = aiohttp.ClientSession()
        closers.extend((session.close, runner.cleanup, gateway.close, clients.close))
        return RunningGateway(url=f"http://127.0.0.1:{runner.addresses[0][1]}", session=session)

    yield start
    for close in closers:
        await close()


@pytest.fixture
async def gateway(backend: Backend, start_gateway: StartGateway) -> RunningGateway:
    """A gateway in front of the fakes."""
    return await start_gateway(backend.address)
