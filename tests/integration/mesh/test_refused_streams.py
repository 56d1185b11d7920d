"""A stream ends once its caller would be refused, wherever it stands, over a real gRPC connection."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.auth.v1 import auth_service_pb2_grpc
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc import access
from mesh.rpc.access import Principal, PrincipalKind, Verifier
from mesh.rpc.errors import Unavailable, from_grpc
from mesh.rpc.principals import KEPT_SECONDS, Principals
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from tests.support.machine_tokens import machine_token
from tests.support.processes import PROCESS_KEYS, process_metadata

WAIT_SECONDS = 20
OWN, ANN, ACCOUNT = UUID(int=1), UUID(int=9), UUID(int=5)
TOKEN = machine_token("ci")
REQUEST = auth.ExportAuditEntriesRequest(organization_id=str(OWN))
PART = auth.ExportAuditEntriesResponse(content=b"x" * 60_000)


class Handler(auth_service_pb2_grpc.AuthServiceServicer):
    """Exports in the way that the test asks for, and says when it has ended."""

    def __init__(self) -> None:
        self.sends_without_end = False
        self.sent = 0
        self.ended = asyncio.Event()

    async def ExportAuditEntries(self, request: Any, context: Any) -> Any:
        try:
            yield PART
            while self.sends_without_end:
                yield PART
                self.sent += 1
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def WatchKeys(self, request: Any, context: Any) -> Any:
        yield auth.WatchKeysResponse()
        await asyncio.Event().wait()


class Side:
    """The side of `auth`: what it signs, what it says of a service account, and what it pushes."""

    def __init__(self) -> None:
        self.signer = SessionSigner(seed=bytes(32), clock=SystemClock(), ids=RandomIds())
        self.principals = Principals(clock=SystemClock())
        self.role = access_pb2.ROLE_OWNER
        self.valid = True
        self.away = False
        self.say(complete=True)

    async def fetch_jwks(self) -> str:
        return self.signer.jwks_json()

    async def resolve(self, token: str) -> Principal | None:
        if self.away:
            raise Unavailable
        kind = PrincipalKind.SERVICE_ACCOUNT
        account = Principal(kind=kind, subject=str(ACCOUNT), organization_id=OWN, role=self.role, token=token)
        return account if self.valid else None

    def say(self, *changes: auth.PrincipalChange, complete: bool = False) -> None:
        if complete:
            self.principals.begin_snapshot()
        self.principals.receive(auth.WatchPrincipalsResponse(changes=changes, snapshot_complete=complete))

    def change_membership(self, version: int) -> None:
        forget_time_s = int(SystemClock().now().timestamp()) + KEPT_SECONDS
        changed = auth.ChangedMembership(
            person_id=str(ANN), organization_id=str(OWN), version=version, forget_time_s=forget_time_s
        )
        self.say(auth.PrincipalChange(membership=changed))

    def state_organization(self, state: int) -> None:
        changed = auth.ChangedOrganization(organization_id=str(OWN), state=state, version=2)
        self.say(auth.PrincipalChange(organization=changed))

    def change_account(self) -> None:
        changed = auth.ChangedServiceAccount(service_account_id=str(ACCOUNT))
        self.say(auth.PrincipalChange(service_account=changed))


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def stub(side: Side, handler: Handler) -> Any:
    verifier = Verifier(
        process_keys=PROCESS_KEYS,
        audience="auth",
        fetch_jwks=side.fetch_jwks,
        resolve_service_account=side.resolve,
        clock=SystemClock(),
        principals=side.principals,
    )
    server = await Server.start(
        name="auth",
        listen="127.0.0.1:0",
        services=[(SERVICES["auth"].descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, handler)],
        verifier=verifier,
        clock=SystemClock(),
        ids=RandomIds(),
    )
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    yield auth_service_pb2_grpc.AuthServiceStub(channel)
    await channel.close()
    await server.stop(0)


def person(side: Side, **fields: Any) -> list[tuple[str, str]]:
    token, _ = side.signer.issue(person_id=ANN, organization_id=OWN, role="owner", **fields)
    return [("authorization", f"Bearer {token}")]


def account() -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {TOKEN}")]


async def open_stream(stub: Any, metadata: Any) -> Any:
    call = stub.ExportAuditEntries(REQUEST, metadata=metadata)
    assert await asyncio.wait_for(call.read(), WAIT_SECONDS) == PART
    return call


async def refusal_of(call: Any) -> Any:
    async def read_to_the_end() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(read_to_the_end(), WAIT_SECONDS)
    return from_grpc(ended.value)


async def is_open(call: Any) -> bool:
    """Whether nothing comes for a moment; the change has been handled when this returns."""
    done, _ = await asyncio.wait({asyncio.ensure_future(call.read())}, timeout=0.2)
    return not done


async def test_a_stream_that_waits_ends_with_its_membership(stub: Any, side: Side, handler: Handler) -> None:
    call = await open_stream(stub, person(side))
    side.change_membership(2)
    refused = await refusal_of(call)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    await asyncio.wait_for(handler.ended.wait(), WAIT_SECONDS)


async def test_a_stream_whose_client_never_reads_stops_producing(stub: Any, side: Side, handler: Handler) -> None:
    handler.sends_without_end = True
    call = await open_stream(stub, person(side))
    sent = -1
    while sent != handler.sent:
        # The line fills up.
        sent = handler.sent
        await asyncio.sleep(0.2)
    side.change_membership(2)
    await asyncio.wait_for(handler.ended.wait(), WAIT_SECONDS)
    assert handler.sent <= sent + 1
    assert (await refusal_of(call)).reason == "CREDENTIALS_INVALID"


async def test_a_stream_that_sends_all_the_time_ends(stub: Any, side: Side, handler: Handler) -> None:
    handler.sends_without_end = True
    call = await open_stream(stub, person(side))
    asyncio.get_running_loop().call_later(0.2, side.change_membership, 2)
    assert (await refusal_of(call)).reason == "CREDENTIALS_INVALID"
    await asyncio.wait_for(handler.ended.wait(), WAIT_SECONDS)


async def test_a_change_of_somebody_else_ends_no_stream(stub: Any, side: Side) -> None:
    call = await open_stream(stub, person(side, membership_version=3))
    side.change_membership(3)
    side.change_account()
    assert await is_open(call)
    call.cancel()


async def test_a_suspended_organization_keeps_the_streams_that_it_may_open(stub: Any, side: Side) -> None:
    call = await open_stream(stub, person(side))
    side.state_organization(auth.ORGANIZATION_STATE_SUSPENDED)
    assert await is_open(call)
    call.cancel()


async def test_a_deleted_organizations_streams_end(stub: Any, side: Side) -> None:
    calls = [await open_stream(stub, person(side)), await open_stream(stub, account())]
    side.state_organization(auth.ORGANIZATION_STATE_DELETED)
    assert [(await refusal_of(call)).reason for call in calls] == ["CREDENTIALS_INVALID"] * 2


async def test_a_revoked_service_accounts_stream_ends(stub: Any, side: Side) -> None:
    call = await open_stream(stub, account())
    side.valid = False
    side.change_account()
    assert (await refusal_of(call)).reason == "CREDENTIALS_INVALID"


async def test_a_service_account_that_may_do_less_loses_what_it_may_not(stub: Any, side: Side) -> None:
    call = await open_stream(stub, account())
    side.change_account()
    assert await is_open(call)
    call.cancel()
    call = await open_stream(stub, account())
    side.role = access_pb2.ROLE_MEMBER
    side.change_account()
    assert (await refusal_of(call)).reason == "ROLE_INSUFFICIENT"


async def test_a_service_account_that_changed_and_cannot_be_asked_about_goes(stub: Any, side: Side) -> None:
    call = await open_stream(stub, account())
    side.away = True
    side.change_account()
    assert (await refusal_of(call)).reason == "VERIFIER_UNAVAILABLE"


async def test_a_service_account_that_ended_without_a_word_is_noticed(
    stub: Any, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SERVICE_ACCOUNT_RECHECK_SECONDS", 0.01)
    call = await open_stream(stub, account())
    side.away = True
    # Nothing has changed, so while auth is away the stream goes on.
    assert await is_open(call)
    side.valid, side.away = False, False
    assert (await refusal_of(call)).reason == "CREDENTIALS_INVALID"


async def test_a_stream_ends_with_its_token(stub: Any, side: Side) -> None:
    call = await open_stream(stub, person(side, end_time=SystemClock().now() + timedelta(seconds=2)))
    assert (await refusal_of(call)).reason == "CREDENTIALS_INVALID"


async def test_a_processes_stream_goes_on(stub: Any, side: Side) -> None:
    call = stub.WatchKeys(auth.WatchKeysRequest(), metadata=process_metadata("edge_proxy", "auth"))
    assert await call.read() == auth.WatchKeysResponse()
    side.say(complete=True)
    assert await is_open(call)
    call.cancel()


async def test_who_waits_is_forgotten_with_the_stream(stub: Any, side: Side, handler: Handler) -> None:
    call = await open_stream(stub, person(side))
    assert side.principals._waiting
    call.cancel()
    await asyncio.wait_for(handler.ended.wait(), WAIT_SECONDS)
    async with asyncio.timeout(WAIT_SECONDS):
        while side.principals._waiting:
            await asyncio.sleep(0.01)
