from __future__ import annotations

import asyncio

import pytest
import uvloop

from edge_proxy.http1.server.options import ServerOptions
from tests.support.edge_fakes import answer


@pytest.fixture
def server_options():
    return ServerOptions(
        head_timeout_seconds=0.3,
        body_idle_seconds=0.3,
        keep_alive_seconds=0.3,
        write_timeout_seconds=0.5,
        linger_seconds=0.2,
    )


async def test_the_tests_run_on_the_loop_of_production(edge):
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_head_that_never_ends_is_408(edge):
    assert (await edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow")).startswith(b"HTTP/1.1 408")


async def test_silent_and_idle_connections_are_closed_without_an_answer(edge):
    assert await edge.raw(b"") == b""
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        await reader.readuntil(b"hello")
        assert await reader.read() == b""


async def test_body_that_stops_is_408_and_the_upstream_connection_is_not_used_again(edge):
    async def wait(head, reader, writer):
        await reader.read()
        return False

    edge.upstream.script = wait
    head = f"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\nContent-Length: 10\r\n\r\n"
    assert (await edge.raw(head.encode() + b"abc")).startswith(b"HTTP/1.1 408")
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert (await edge.request("/x")).status == 200


async def test_client_that_does_not_read_is_reset(edge):
    async def large(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            for _ in range(1_000):
                writer.write(b"x" * 100_000)
                await writer.drain()
        except ConnectionError:
            pass
        return False

    edge.upstream.script = large
    async with edge.connection() as (reader, writer):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        (event,) = await edge.events(1)
    assert event.status == 200
    assert event.response_bytes < 100_000_000
    await edge.until(lambda: not edge.worker.server.connections)


async def test_refused_upload_gets_its_answer_although_it_goes_on_sending(edge):
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(head + b"x" * 100_000)
        received = await reader.readuntil(b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 401")
        writer.write(b"x" * 100_000)
        assert b"key-missing" in await reader.read()


async def test_idle_connections_close_soon_when_draining_and_late_requests_are_still_served(surroundings):
    edge = surroundings
    await edge.start()
    await edge.healthy()
    request = f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode()
    async with edge.connection() as (idle, _), edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(request)
        await reader.readuntil(b"hello")
        stopping = asyncio.create_task(edge.stop())
        await edge.until(lambda: edge.worker.server.is_draining)
        writer.write(request)
        last = await reader.readuntil(b"hello")
        assert last.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in last
        assert await reader.read() == b""
        assert await idle.read() == b""
        await stopping
