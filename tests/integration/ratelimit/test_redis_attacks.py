"""Redis misbehaves under load: forgets its scripts, has no memory left, is still loading, hangs under two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from cli.stack.ports import free_ports
from mesh.redis import RedisUnavailable, redis_pipe
from services.ratelimit.rpc.policies import to_policy
from tests.integration.ratelimit.conftest import Running, replica
from tests.integration.ratelimit.test_decide_rpc import decision, kinds
from tests.support.postgres import TestDatabase
from tests.support.ratelimit import bucket, policy
from tests.support.redis_servers import Node, redis_node
from tests.support.redis_versions import SERVERS

A, D, UNAVAILABLE = pb.VERDICT_KIND_ALLOWED, pb.VERDICT_KIND_DENIED, pb.VERDICT_KIND_UNAVAILABLE
DAY_SECONDS = 86_400
LIMIT = 100


@pytest.fixture(params=sorted(SERVERS))
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    (port,) = free_ports(1)
    with redis_node(SERVERS[request.param], tmp_path, port) as started:
        yield started


@pytest.fixture
async def two(database: TestDatabase, node: Node) -> AsyncIterator[tuple[Running, Running]]:
    url = f"redis://127.0.0.1:{node.port}/0"
    async with replica(database, url, 2.0) as one, replica(database, url, 2.0) as other:
        await one.put(to_policy(policy(bucket(LIMIT, DAY_SECONDS))))
        async with asyncio.timeout(60):
            while kinds((await other.decide([decision(10 * LIMIT)]))[0]) != [D]:
                await asyncio.sleep(0.02)
        yield one, other


@contextlib.asynccontextmanager
async def scripts_flushed(node: Node) -> AsyncIterator[None]:
    """Makes the server forget its scripts again and again."""
    done = asyncio.Event()

    async def flush() -> None:
        while not done.is_set():
            await asyncio.to_thread(node.say, "SCRIPT", "FLUSH")

    flushing = asyncio.create_task(flush())
    try:
        yield
    finally:
        done.set()
        await flushing


async def test_scripts_flushed_under_the_load_of_two_replicas_change_no_count(
    two: tuple[Running, Running], node: Node
) -> None:
    async with scripts_flushed(node):
        streams = await asyncio.gather(*(each.decide(*[[decision()] for _ in range(2 * LIMIT)]) for each in two))
    verdicts = [answer.verdicts[0] for stream in streams for answer in stream]
    assert sorted({verdict.kind for verdict in verdicts}) == [A, D]
    assert sum(verdict.kind == A for verdict in verdicts) == LIMIT


async def test_scripts_flushed_under_load_change_no_order(two: tuple[Running, Running], node: Node) -> None:
    one, _ = two
    async with scripts_flushed(node):
        stream = await one.decide(*[[decision()] for _ in range(2 * LIMIT)])
    assert [answer.verdicts[0].remaining[0] for answer in stream] == [*range(LIMIT - 1, -1, -1), *[0] * LIMIT]


async def test_a_redis_without_memory_decides_nothing_and_goes_on_when_there_is_some(
    two: tuple[Running, Running], node: Node
) -> None:
    one, _ = two
    node.say("CONFIG", "SET", "maxmemory", 1)
    assert kinds((await one.decide([decision()]))[0]) == [UNAVAILABLE]
    assert one.pipe.connected.is_set()
    node.say("CONFIG", "SET", "maxmemory", 0)
    (answer,) = await one.decide([decision()])
    assert (kinds(answer), list(answer.verdicts[0].remaining)) == ([A], [LIMIT - 1])


async def test_two_replicas_on_a_redis_that_hung_admit_no_more_than_the_limit(
    two: tuple[Running, Running], node: Node
) -> None:
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        hung = await asyncio.gather(*(each.decide([decision()] * 10) for each in two))
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    assert [kinds(answer) for (answer,) in hung] == [[UNAVAILABLE] * 10] * 2
    admitted = 0
    for each in two:
        await asyncio.wait_for(each.pipe.connected.wait(), 60)
    for each in two:
        for answer in await each.decide(*[[decision()] * 10 for _ in range(LIMIT // 10)]):
            admitted += kinds(answer).count(A)
    assert admitted <= LIMIT


async def test_a_redis_that_is_loading_is_away_until_it_has_loaded() -> None:
    is_loading = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.readline():
            for _ in range(2 * int(command[1:])):
                await reader.readline()
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n" if is_loading else b"+PONG\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pipe = redis_pipe(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    running = asyncio.create_task(pipe.run())
    with pytest.raises(RedisUnavailable):
        await pipe.ping()
    is_loading = False
    await asyncio.wait_for(pipe.connected.wait(), 60)
    await pipe.ping()
    # It is restarted behind the same connection, as a proxy would do it.
    is_loading = True
    await pipe.call([("GET", "k")])
    async with asyncio.timeout(60):
        while pipe.connected.is_set():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    server.close()
