"""What one client can make the server do in one turn of the event loop, keep in memory, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from edge_proxy.http1.server import protocol
from edge_proxy.http1.server.body import CHUNKS_PER_TURN_MAX, ChunkedDecoder
from edge_proxy.http1.server.options import ServerOptions
from tests.integration.edge_proxy.http1.conftest import GET, SMALL, TurnMeter

# One read of uvloop.
READ_BYTES_MAX = 256_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_pipelined_requests_share_the_loop_and_are_all_answered_in_order(site):
    site.remember = False
    count = 20_000
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        meter = TurnMeter(lambda: site.answered)
        writer.write(GET * count)
        for _ in range(count):
            await reader.readexactly(len(SMALL))
        meter.stop()
    assert site.answered == count
    assert meter.most <= protocol.ANSWERS_PER_TURN_MAX
    assert site.server.turns.taken >= count // protocol.ANSWERS_PER_TURN_MAX // 2


async def test_large_heads_share_the_loop_by_their_bytes(site):
    site.remember = False
    count = 500
    large = b"GET /" + b"%61" * 2_700 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        meter = TurnMeter(lambda: site.answered)
        writer.write(large * count)
        await reader.readexactly(len(SMALL) * count)
        meter.stop()
    assert meter.most <= protocol.HEAD_BYTES_PER_TURN_MAX // len(large) + 1


async def test_many_busy_connections_get_one_turn_each(site):
    site.remember = False
    count, clients = 2_000, 8

    async def pipeline() -> None:
        async with site.connection() as (reader, writer):
            writer.write(GET * count)
            await reader.readexactly(len(SMALL) * count)

    async with asyncio.timeout(60):
        meter = TurnMeter(lambda: site.server.turns.taken)
        await asyncio.gather(*(pipeline() for _ in range(clients)))
        meter.stop()
    assert site.answered == count * clients
    assert meter.most == 1


async def test_body_of_tiny_chunks_shares_the_loop(site, monkeypatch):
    decoders = []

    class Counted(ChunkedDecoder):
        def __init__(self) -> None:
            super().__init__()
            decoders.append(self)

    monkeypatch.setattr("edge_proxy.http1.server.body.ChunkedDecoder", Counted)
    site.respond = site.read_all
    count = 100_000
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        meter = TurnMeter(lambda: sum(decoder.chunks for decoder in decoders))
        writer.write(CHUNKED + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
        await reader.readexactly(len(SMALL))
        meter.stop()
    assert site.bodies == [b"x" * count]
    # New bytes and the queue's turn may both fall into one turn of the loop.
    assert meter.most <= 2 * CHUNKS_PER_TURN_MAX


async def test_reading_is_resumed_for_tiny_chunks_that_waited_behind_a_slow_request(site):
    gate = asyncio.Event()

    async def slow_then_all(client, head):
        if head.method == "GET":
            await gate.wait()
            return SMALL
        return await site.read_all(client, head)

    site.respond = slow_then_all
    count = 40_000
    async with site.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(GET + CHUNKED + b"1\r\nx\r\n" * count + b"0\r\n\r\n" + GET)
        connection = await first_connection(site)
        await site.until(lambda: not connection._is_reading)
        gate.set()
        await reader.readexactly(3 * len(SMALL))
    assert site.bodies == [b"x" * count]


async def test_what_waits_behind_a_slow_request_is_bounded_and_not_lost(site):
    gate = asyncio.Event()

    async def slow(client, head):
        await gate.wait()
        return SMALL

    site.respond = slow
    count = 100_000
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(GET * count)
        connection = await first_connection(site)
        await site.until(lambda: not connection._is_reading)
        assert len(connection._buffer) <= protocol.PIPELINED_BYTES_MAX + READ_BYTES_MAX
        gate.set()
        await reader.readexactly(count * len(SMALL))


@pytest.mark.parametrize("options", [ServerOptions(write_timeout_seconds=0.4)])
async def test_client_that_pipelines_and_never_reads_is_bounded_and_dropped(site):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1_000

    async def respond(client, head):
        return answer

    site.respond, site.remember = respond, False
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", site.port))
        sending = asyncio.create_task(send_all(client, GET * 400_000))
        connection = await first_connection(site)
        most = 0
        async with asyncio.timeout(30):
            while site.server.connections:
                most = max(most, connection._transport.get_write_buffer_size())
                await asyncio.sleep(0.01)
        sending.cancel()
    assert 0 < most <= protocol.ANSWER_BYTES_MAX + len(answer)


@pytest.mark.parametrize("options", [ServerOptions(write_timeout_seconds=0.4)])
async def test_client_that_never_reads_its_last_answer_is_dropped_too(site):
    async def respond(client, head):
        client.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        return b"x" * (16 << 20)

    site.respond = respond
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", site.port))
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await site.until(lambda: site.answered)
        await site.until(lambda: not site.server.connections)


@pytest.mark.parametrize("options", [ServerOptions(head_timeout_seconds=0.3)])
async def test_half_a_head_behind_an_answer_does_not_live_on_keep_alive_time(site):
    received = await site.exchange(GET + b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow")
    assert received.startswith(SMALL)
    assert [refused.status for refused in site.refusals] == [408]


@pytest.mark.parametrize("options", [ServerOptions(body_idle_seconds=0.5, body_bytes_per_second_min=1_000)])
async def test_body_that_drips_below_the_minimum_rate_is_refused(site):
    site.respond = site.read_all

    async def drip(writer) -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async with site.connection() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        dripping = asyncio.create_task(drip(writer))
        await site.until(lambda: site.failures)
        dripping.cancel()
    assert [error.status for error in site.failures] == [408]


@pytest.mark.parametrize("options", [ServerOptions(body_idle_seconds=5.0)])
async def test_body_that_waits_for_its_reader_is_no_drip(site):
    gate = asyncio.Event()

    async def late_reader(client, head):
        await client.read_body()
        await gate.wait()
        return await site.read_all(client, head)

    site.respond = late_reader
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
        connection = await first_connection(site)
        await site.until(lambda: connection.body is not None and connection.deadline == protocol.NEVER)
        # The reader takes its time; the server's clock is the test's from here on.
        site.server._sweep_handle.cancel()
        site.server.now += 1_000.0
        gate.set()
        await site.until(lambda: connection.deadline != protocol.NEVER)
        assert connection.deadline - site.server.now == pytest.approx(5.0, abs=0.5)
        writer.write(b"x")
        await reader.readexactly(len(SMALL))
    assert site.failures == []


async def test_head_that_is_too_large_gets_its_431_although_more_is_coming(site):
    large = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 900_000
    assert (await site.exchange(large)).startswith(b"HTTP/1.1 431 ")


async def test_client_that_goes_on_sending_after_its_refusal_is_cut_off(site):
    async with site.connection() as (_, writer), asyncio.timeout(60):
        with pytest.raises(ConnectionError):
            await send_for_ever(writer)
    assert [refused.status for refused in site.refusals] == [431]


async def test_gone_connection_keeps_no_bytes_of_its_client(site):
    gate = asyncio.Event()

    async def stuck(client, head):
        await gate.wait()
        return SMALL

    site.respond = stuck
    async with site.connection() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 60_000)
        connection = await first_connection(site)
        await site.until(lambda: connection.body is not None and connection.body.size)
        writer.transport.abort()
    await site.until(lambda: connection.is_gone)
    assert (connection._buffer, connection.body._pieces) == (b"", [])
    gate.set()


async def first_connection(site):
    await site.until(lambda: site.server.connections)
    return next(iter(site.server.connections))


async def send_all(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(client, data)


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()
