"""The wire without a socket: what is written, how replies find their calls, when it is given up."""

from __future__ import annotations

import asyncio

import hiredis
import pytest

from mesh.redis import RedisUnavailable, redis_pipe
from mesh.redis.wire import Wire


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


async def opened(timeout_seconds: float = 10) -> tuple[Wire, Transport]:
    wire, transport = Wire(timeout_seconds), Transport()
    wire.serve(transport)
    return wire, transport


async def test_replies_find_their_calls_however_the_bytes_are_cut() -> None:
    wire, transport = await opened()
    first, second = wire.call([("GET", "a"), ("GET", "b")]), wire.call([("INCR", "c")])
    assert transport.writes == []
    await asyncio.sleep(0)
    (written,) = transport.writes
    assert written.count(b"GET") == 2
    stream = b"$1\r\nx\r\n-NOSCRIPT no\r\n:7\r\n"
    for index in range(len(stream)):
        wire.data_received(stream[index : index + 1])
    found, error = await first
    assert found == b"x"
    assert isinstance(error, hiredis.ReplyError)
    assert await second == [7]


async def test_a_late_reply_gives_the_connection_up_and_fails_all_that_wait() -> None:
    wire, transport = await opened(timeout_seconds=0.01)
    calls = [wire.call([("PING",)]) for _ in range(3)]
    for call in calls:
        with pytest.raises(RedisUnavailable):
            await call
    assert transport.aborted
    assert await wire.lost == "timeout"
    with pytest.raises(RedisUnavailable):
        await wire.call([("PING",)])


async def test_an_answered_call_is_not_timed_out() -> None:
    wire, transport = await opened(timeout_seconds=0.01)
    call = wire.call([("PING",)])
    wire.data_received(b"+PONG\r\n")
    assert await call == [b"PONG"]
    later = wire.call([("PING",)])
    wire.data_received(b"+PONG\r\n")
    assert await later == [b"PONG"]
    assert not transport.aborted


async def test_bytes_that_are_no_redis_give_the_connection_up() -> None:
    wire, _ = await opened()
    call = wire.call([("PING",)])
    wire.data_received(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(RedisUnavailable):
        await call
    assert await wire.lost == "protocol"


async def test_without_a_connection_calls_fail_at_once() -> None:
    pipe = redis_pipe("redis://127.0.0.1:1/0")
    with pytest.raises(RedisUnavailable):
        await pipe.ping()
