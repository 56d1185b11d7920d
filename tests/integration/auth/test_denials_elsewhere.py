"""Calls that another service denies are in the audit log of the caller's organization, counted, wherever auth was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from tollway.metering.v1 import metering_service_pb2 as pb
from tollway.metering.v1 import metering_service_pb2_grpc

from contract.services import METERING
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.database.pools import DatabaseUnavailable
from mesh.ids import RandomIds
from mesh.rpc import denials
from mesh.rpc.client import Clients
from mesh.rpc.client_address import vouched_address
from mesh.rpc.server import Server
from mesh.service.runner import Role, ServiceContext, _count_denials
from services.auth import store
from services.auth.audit import INSTALLATION
from services.auth.model import AuditEntry, AuditFilter
from services.auth.service import Accounts
from tests.support.accounts import SeededOrganization, seed_organization
from tests.support.processes import process_fields, process_metadata, process_tokens
from tests.support.serving import person_metadata, test_verifier


class Metering(metering_service_pb2_grpc.MeteringServiceServicer):
    """A service that is never reached by who may not call it."""


@contextlib.asynccontextmanager
async def metering(auth_address: str) -> AsyncIterator[Any]:
    """Metering's RPCs behind what the runner puts around every service; yields a stub."""
    clients = Clients(ProcessSettings(**process_fields("metering"), auth_address=auth_address), process="metering")
    context: Any = ServiceContext(
        settings=None,
        db=None,
        clients=clients,
        clock=SystemClock(),
        ids=RandomIds(),
        tasks=None,  # type: ignore[arg-type]
    )
    role = _count_denials(Role(handler=Metering()), context)
    server = await Server.start(
        name="metering",
        listen="127.0.0.1:0",
        services=[(METERING.descriptor, metering_service_pb2_grpc.add_MeteringServiceServicer_to_server, role.handler)],
        verifier=test_verifier("metering"),
        clock=SystemClock(),
        ids=RandomIds(),
        on_denied=role.on_denied,
    )
    stopping = asyncio.Event()
    counting = asyncio.create_task(role.workers[-1](stopping))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        try:
            yield metering_service_pb2_grpc.MeteringServiceStub(channel)
        finally:
            await server.stop(1.0)
            stopping.set()
            await counting
            await clients.close()


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


async def entries(auth: Any, organization_id: Any) -> list[AuditEntry]:
    async with auth.db.system() as tx:
        return await store.audit.list_oldest(
            tx, organization_id, AuditFilter(action="rpc.deny"), after=None, limit=1_000
        )


async def refused(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_a_wrong_role_and_anothers_organization_are_told_with_who_where_and_how_often(
    auth: Any, acme: SeededOrganization
) -> None:
    member = person_metadata(acme.owner_id, acme.organization_id, "member")
    gateway = [*member, *vouched_address(process_tokens("graphql_gateway"), "203.0.113.7", "metering")]
    async with metering(auth.address) as stub:
        letters = pb.ListDeadLettersRequest(organization_id=str(acme.organization_id))
        for _ in range(3):
            await refused(stub.ListDeadLetters(letters, metadata=gateway))
        await refused(stub.QueryUsage(pb.QueryUsageRequest(organization_id=str(uuid4())), metadata=member))
        await refused(stub.QueryUsage(pb.QueryUsageRequest(organization_id=str(uuid4()))))
        await refused(stub.ListDeadLetters(letters, metadata=process_metadata("billing", "metering")))
    found = sorted(await entries(auth, acme.organization_id), key=lambda each: each.audit_entry_id)
    rpc = "rpc/tollway.metering.v1.MeteringService"
    assert [(each.resource, each.address, each.details["reason"], each.details["count"]) for each in found] == [
        (f"{rpc}/ListDeadLetters", "203.0.113.7", "ROLE_INSUFFICIENT", 3),
        (f"{rpc}/QueryUsage", "ipv4:127.0.0.1", "ORGANIZATION_NOT_FOUND", 1),
    ]
    assert {(each.actor, each.actor_kind) for each in found} == {(str(acme.owner_id), "person")}
    (process,) = await entries(auth, INSTALLATION)
    assert (process.actor, process.actor_kind, process.resource) == ("billing", "process", f"{rpc}/ListDeadLetters")


async def test_denials_wait_for_an_auth_that_is_away_and_are_told_once(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denials, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(denials, "INTERVAL_SECONDS", 0.01)
    failures = [DatabaseUnavailable(), DatabaseUnavailable()]
    append = Accounts.append_audit_entries

    async def lose_answers(accounts: Accounts, entries: Any) -> int:
        appended = await append(accounts, entries)
        if failures:
            raise failures.pop()
        return appended

    monkeypatch.setattr(Accounts, "append_audit_entries", lose_answers)
    member = person_metadata(acme.owner_id, acme.organization_id, "member")
    async with metering(auth.address) as stub:
        letters = pb.ListDeadLettersRequest(organization_id=str(acme.organization_id))
        for _ in range(5):
            await refused(stub.ListDeadLetters(letters, metadata=member))
        async with asyncio.timeout(60):
            while failures:
                await asyncio.sleep(0.01)
    assert sum(each.details["count"] for each in await entries(auth, acme.organization_id)) == 5


async def test_a_flood_of_denials_is_a_handful_of_entries(auth: Any, acme: SeededOrganization) -> None:
    async with metering(auth.address) as stub:

        async def deny(number: int) -> None:
            who = person_metadata(uuid4() if number % 2 else acme.owner_id, acme.organization_id, "member")
            await refused(stub.QueryUsage(pb.QueryUsageRequest(organization_id=str(uuid4())), metadata=who))

        for start in range(0, 600, 100):
            await asyncio.gather(*(deny(number) for number in range(start, start + 100)))
    found = await entries(auth, acme.organization_id) + await entries(auth, INSTALLATION)
    assert sum(each.details["count"] for each in found) == 600
    assert len(found) <= 2 * (denials.KINDS_MAX + 2)
    assert sum(each.details["count"] for each in found if each.actor == str(acme.owner_id)) == 300
