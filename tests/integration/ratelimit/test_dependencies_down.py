"""What happens when Redis, PostgreSQL or metering is away, hung or has forgotten everything."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import grpc.aio
import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from cli.stack.ports import free_ports
from cli.stack.servers.redis import RunningRedis, start_redis
from mesh.redis import RedisUnavailable
from services.ratelimit.rpc.policies import to_policy
from tests.integration.ratelimit.conftest import Running, replica
from tests.integration.ratelimit.test_decide_rpc import decision, kinds
from tests.support.cut_off import cuttable
from tests.support.postgres import TestDatabase
from tests.support.ratelimit import bucket, month, policy

A, D = pb.VERDICT_KIND_ALLOWED, pb.VERDICT_KIND_DENIED
UNAVAILABLE = pb.VERDICT_KIND_UNAVAILABLE
TIMEOUT_SECONDS = 1.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RunningRedis]:
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(0o711)
    (port,) = free_ports(1)
    server = start_redis(folder=tmp_path, port=port, log_path=tmp_path / "redis.log", throwaway=True)
    yield server
    server.stop()


@pytest.fixture
async def limited(database: TestDatabase, own_redis: RunningRedis) -> AsyncIterator[Running]:
    async with replica(database, own_redis.url, TIMEOUT_SECONDS) as running:
        await running.put(to_policy(policy(bucket(100), month(10))))
        yield running


async def test_a_hung_redis_delays_one_batch_by_its_timeout_and_none_after_it(
    limited: Running, own_redis: RunningRedis
) -> None:
    await limited.decide([decision()])
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        (answer,) = await limited.decide([decision()])
        assert kinds(answer) == [UNAVAILABLE]
        taken = []
        for _ in range(20):
            started = time.monotonic()
            (answer,) = await limited.decide([decision()])
            taken.append(time.monotonic() - started)
            assert kinds(answer) == [UNAVAILABLE]
        # Whoever shares the machine may slow some of them down; each would wait for the timeout without the breaker.
        assert min(taken) < TIMEOUT_SECONDS, taken
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    async with asyncio.timeout(60):
        await limited.pipe.connected.wait()
        await until_allowed(limited)


async def test_a_redis_that_is_gone_makes_the_service_unready_and_verdicts_say_so(
    limited: Running, own_redis: RunningRedis
) -> None:
    await until_allowed(limited)
    own_redis.stop()
    (answer,) = await limited.decide([decision(), decision()])
    assert kinds(answer) == [UNAVAILABLE, UNAVAILABLE]
    with pytest.raises(RedisUnavailable):
        await limited.pipe.ping()


async def test_a_script_that_redis_forgot_is_taught_again(running: Running) -> None:
    await running.put(to_policy(policy(bucket(100), month(10))))
    await running.pipe.call([("SCRIPT", "FLUSH")])
    (answer,) = await running.decide([decision()])
    assert kinds(answer) == [A]


async def test_a_month_survives_a_flush_of_redis(running: Running) -> None:
    await running.put(to_policy(policy(bucket(100), month(10))))
    running.usage.units = {b"": Decimal(8)}
    (answer,) = await running.decide([decision() for _ in range(3)])
    assert kinds(answer) == [A, A, D]
    await running.pipe.call([("FLUSHALL",)])
    running.usage.units = {b"": Decimal(10)}
    (answer,) = await running.decide([decision()])
    assert kinds(answer) == [D]
    assert len(running.usage.questions) == 2
    await running.decide([decision()], [decision()], [decision()])
    assert len(running.usage.questions) == 2


async def test_many_batches_that_meet_an_unknown_month_ask_metering_once(running: Running) -> None:
    await running.put(to_policy(policy(bucket(1_000), month(500))))
    await running.decide(*[[decision()] for _ in range(40)])
    assert len(running.usage.questions) == 1


async def test_without_metering_decisions_go_on_and_the_month_is_corrected_later(
    database: TestDatabase, redis_url: str
) -> None:
    async with replica(database, redis_url, seed_wait_seconds=0.03) as running:
        await decide_without_metering(running)


async def decide_without_metering(running: Running) -> None:
    await running.put(to_policy(policy(bucket(100), month(10))))
    running.usage.units, running.usage.away = {b"": Decimal(10)}, True
    (answer,) = await running.decide([decision()])
    assert kinds(answer) == [A]
    running.usage.away = False
    async with asyncio.timeout(60):
        while kinds((await running.decide([decision()]))[0]) != [D]:
            await asyncio.sleep(0.02)


async def test_without_postgresql_known_policies_stay_in_force_and_changes_are_heard_again_afterwards(
    database: TestDatabase, redis_url: str
) -> None:
    async with cuttable(database) as (way, reached), replica(reached, redis_url) as running:
        await running.put(to_policy(policy(bucket(2))))
        way.cut()
        (answer,) = await running.decide([decision(), decision(), decision()])
        assert kinds(answer) == [A, A, D]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.put(to_policy(policy(bucket(3), version=2)))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await way.open()
        async with replica(database, redis_url) as other, asyncio.timeout(60):
            await other.put(to_policy(policy(bucket(1_000), version=3)))
            await until_allowed(running)


async def test_every_open_stream_is_a_live_edge(running: Running) -> None:
    await running.put(to_policy(policy(bucket(100))))
    never = asyncio.Event()

    async def one_batch_and_wait() -> AsyncIterator[pb.DecideRequest]:
        yield pb.DecideRequest(batch_id=1, decisions=[decision()])
        await never.wait()

    calls = [
        running.stub().Decide(one_batch_and_wait(), metadata=running.metadata("edge_proxy"), timeout=20)
        for _ in range(2)
    ]
    for call in calls:
        await call.read()
    (answer,) = await running.decide([decision()])
    assert answer.live_edges == 3
    for call in calls:
        call.cancel()
    async with asyncio.timeout(60):
        while (await running.decide([decision()]))[0].live_edges != 1:
            await asyncio.sleep(0.05)


async def until_allowed(running: Running) -> None:
    while kinds((await running.decide([decision()]))[0]) != [A]:
        await asyncio.sleep(0.02)
