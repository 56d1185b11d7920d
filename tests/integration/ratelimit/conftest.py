"""Ratelimit on real PostgreSQL and Redis, with a real server in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import grpc.aio
import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb
from tollway.ratelimit.v1.ratelimit_service_pb2_grpc import (
    RateLimitServiceStub,
    add_RateLimitServiceServicer_to_server,
)

from contract.windows import WindowScope
from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.redis import RedisPipe, redis_pipe
from mesh.rpc.server import Server
from services.ratelimit.counters import Counters, greeting
from services.ratelimit.decisions import DecisionService
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.policies import Policies
from services.ratelimit.rpc.handler import RateLimitHandler
from services.ratelimit.seeding import Seeder, UsageUnavailable
from services.ratelimit.service import PolicyService
from tests.support.metering import verifier
from tests.support.postgres import TestDatabase
from tests.support.processes import process_metadata


@dataclass
class FakeUsage:
    """Metering as the limiter sees it."""

    units: dict[bytes, Decimal] = field(default_factory=dict)
    away: bool = False
    questions: list[UUID] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    # Closed by a test that wants a question to stay open.
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def billable_units(
        self, organization_id: UUID, start_time: datetime, scope: WindowScope
    ) -> dict[bytes, Decimal]:
        self.questions.append(organization_id)
        self.asked.set()
        await self.gate.wait()
        if self.away:
            raise UsageUnavailable
        return self.units


@dataclass
class Running:
    """One replica and how to call it."""

    channel: grpc.aio.Channel
    usage: FakeUsage
    pipe: RedisPipe
    leases: EdgeLeases
    policies: Policies

    def metadata(self, process: str) -> list[tuple[str, str]]:
        return process_metadata(process, "ratelimit")

    def stub(self) -> RateLimitServiceStub:
        return RateLimitServiceStub(self.channel)

    async def put(self, message: pb.Policy) -> pb.Policy:
        return await self.stub().PutPolicy(pb.PutPolicyRequest(policy=message), metadata=self.metadata("billing"))

    async def decide(
        self, *batches: list[pb.Decision], give_backs: list[pb.GiveBack] | None = None
    ) -> list[pb.DecideResponse]:
        requests = [pb.DecideRequest(batch_id=number, decisions=batch) for number, batch in enumerate(batches, 1)]
        if give_backs:
            requests[-1].give_backs.extend(give_backs)
        call = self.stub().Decide(iter(requests), metadata=self.metadata("edge_proxy"), timeout=20)
        return sorted([response async for response in call], key=lambda response: response.batch_id)


@contextlib.asynccontextmanager
async def replica(
    database: TestDatabase, redis_url: str, timeout_seconds: float = 60, seed_wait_seconds: float = 60
) -> AsyncIterator[Running]:
    db = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"), system_dsn=database.dsn("ratelimit_system"), name="ratelimit-test"
    )
    clock, ids = SystemClock(), RandomIds()
    pipe = redis_pipe(redis_url, timeout_seconds=timeout_seconds, greeting=greeting)
    policies, counters, usage = Policies(db), Counters(pipe), FakeUsage()
    leases = EdgeLeases(pipe=pipe, ids=ids)

    async with asyncio.TaskGroup() as tasks:
        seeder = Seeder(usage=usage, run=counters.teach, tasks=tasks)
        loops = [tasks.create_task(each.run()) for each in (pipe, policies, leases)]
        await asyncio.wait_for(policies.loaded.wait(), 60)
        await asyncio.wait_for(pipe.connected.wait(), 60)
        server = await Server.start(
            name="ratelimit",
            listen="127.0.0.1:0",
            services=[
                (
                    pb.DESCRIPTOR.services_by_name["RateLimitService"],
                    add_RateLimitServiceServicer_to_server,
                    RateLimitHandler(
                        decisions=DecisionService(
                            policies=policies,
                            counters=counters,
                            seeder=seeder,
                            clock=clock,
                            seed_wait_seconds=seed_wait_seconds,
                        ),
                        policies=PolicyService(db=db, policies=policies, clock=clock, ids=ids),
                        leases=leases,
                    ),
                )
            ],
            verifier=verifier("ratelimit"),
            clock=clock,
            ids=ids,
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Running(channel=channel, usage=usage, pipe=pipe, leases=leases, policies=policies)
        await server.stop(0.1)
        await seeder.stop()
        for loop in loops:
            loop.cancel()
    await db.close()


@pytest.fixture
async def running(database: TestDatabase, redis_url: str) -> AsyncIterator[Running]:
    async with replica(database, redis_url) as one:
        yield one
