"""Metering on a fresh database, with a real server in this process where a test asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import grpc.aio
import pytest
from tollway.metering.v1 import metering_service_pb2 as pb
from tollway.metering.v1.metering_service_pb2_grpc import (
    MeteringServiceStub,
    add_MeteringServiceServicer_to_server,
)

from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.pagination import PageTokens
from mesh.rpc.access import Principal
from mesh.rpc.server import Server
from services.metering.dead_letters import DeadLetters
from services.metering.ingest import Ingester
from services.metering.rpc.handler import MeteringHandler
from services.metering.service import IngestQueue, UsageService
from tests.support.metering import verifier
from tests.support.postgres import TestDatabase
from tests.support.processes import process_metadata


@pytest.fixture
async def db(database: TestDatabase) -> AsyncIterator[Database]:
    opened = await Database.connect(
        tenant_dsn=database.dsn("metering"), system_dsn=database.dsn("metering_system"), name="metering-test"
    )
    yield opened
    await opened.close()


@pytest.fixture
def ingester(db: Database) -> Ingester:
    return Ingester(db=db, clock=SystemClock())


class NoKeys:
    """Auth as it is for somebody who created no key."""

    async def created_by(self, principal: Principal) -> tuple[UUID, ...]:
        return ()


@dataclass
class Running:
    """A server and how to call it as a process."""

    port: int
    channel: grpc.aio.Channel

    def metadata(self, process: str) -> list[tuple[str, str]]:
        return process_metadata(process, "metering")

    def stub(self) -> MeteringServiceStub:
        return MeteringServiceStub(self.channel)


@pytest.fixture
async def running(db: Database, ingester: Ingester) -> AsyncIterator[Running]:
    clock = SystemClock()
    queue = IngestQueue(ingester.apply)
    writer = asyncio.create_task(queue.run())
    server = await Server.start(
        name="metering",
        listen="127.0.0.1:0",
        services=[
            (
                pb.DESCRIPTOR.services_by_name["MeteringService"],
                add_MeteringServiceServicer_to_server,
                MeteringHandler(
                    queue=queue,
                    usage=UsageService(db=db, own_keys=NoKeys()),
                    dead_letters=DeadLetters(db=db, ingester=ingester, clock=clock, ids=RandomIds()),
                    page_tokens=PageTokens(bytes(32)),
                ),
            )
        ],
        verifier=verifier("metering"),
        clock=clock,
        ids=RandomIds(),
        checks={"postgres": db.ping},
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(port=server.port, channel=channel)
    await server.stop(0.1)
    writer.cancel()
