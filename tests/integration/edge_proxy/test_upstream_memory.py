"""What an exchange with an upstream may hold, and that it lets go of it without the garbage collector's help."""

from __future__ import annotations

import asyncio
import gc

import pytest

from edge_proxy.http1.client.connection import WAITING_BYTES_MAX, UpstreamConnection

READ_BYTES_MAX = 262_144


@pytest.fixture
def _no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held_bytes() -> int:
    """Return the body bytes that connections to upstreams hold, wherever they are referred to from."""
    connections = [each for each in gc.get_objects() if isinstance(each, UpstreamConnection)]
    return sum(len(chunk) for each in connections for chunk in each._chunks)


async def flood(head, reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    try:
        for _ in range(1_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
    except ConnectionError:
        pass
    return False


@pytest.mark.usefixtures("_no_collector")
async def test_downloads_that_are_aborted_leave_nothing_behind(edge):
    edge.upstream.script = flood
    request = f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode()
    for _ in range(20):
        async with edge.connection() as (_, writer), asyncio.timeout(120):
            writer.transport.pause_reading()
            writer.write(request)
            # The edge waits for the client, and the upstream's bytes wait in the edge.
            await edge.until(lambda: held_bytes() > WAITING_BYTES_MAX)
            writer.transport.abort()
        await edge.until(lambda: not edge.worker.server.connections)
    await edge.events(20)
    assert held_bytes() == 0


@pytest.mark.usefixtures("_no_collector")
async def test_an_exchange_holds_a_bounded_part_of_its_answer(edge):
    edge.upstream.script = flood
    request = f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode()
    highest = 0
    async with edge.connection() as (reader, writer), asyncio.timeout(120):
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(50):
            await reader.readexactly(100_000)
            highest = max(highest, held_bytes())
        writer.transport.abort()
    assert highest <= WAITING_BYTES_MAX + READ_BYTES_MAX


@pytest.mark.usefixtures("_no_collector")
async def test_upstreams_that_break_off_leave_nothing_behind(edge):
    async def break_off(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000)
        await writer.drain()
        writer.transport.abort()
        return False

    edge.upstream.script = break_off
    for _ in range(20):
        async with edge.connection() as (reader, writer), asyncio.timeout(120):
            writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(100_000_000)
    await edge.events(20)
    assert held_bytes() == 0
