"""Hostile clients against a real worker process: what it keeps in memory, and how long everybody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import statistics
import time

import aiohttp
import psutil
import pytest

from tests.integration.edge_proxy.test_supervisor import Running
from tests.support.edge_fakes import Backend, FakeUpstream, grant

MIB = 1 << 20
# edge_proxy/README.md, "What one client can take".
CONNECTION_BYTES_MAX = 1.25 * MIB
CLIENTS = 40
# What the allocator keeps for itself when many objects come and go; found by running the test with no attack at all.
NOISE_BYTES = 12 * MIB
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
NO_KEY = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class OneWorker(Running):
    def environment(self) -> dict[str, str]:
        return super().environment() | {"TOLLWAY_EDGE_WORKERS": "1"}

    async def rss(self) -> int:
        (pid,) = await self.pids()
        return psutil.Process(pid).memory_info().rss


@pytest.fixture
async def running(tmp_path):
    backend, upstream = Backend(), FakeUpstream()
    await backend.start()
    await upstream.start()
    edge = OneWorker(backend, upstream, tmp_path)
    backend.auth.add(grant(edge.key))
    async with aiohttp.ClientSession() as edge.session:
        await edge.start()
        yield edge
        if edge.process.returncode is None:
            edge.process.kill()
            await edge.process.wait()
    await upstream.stop()
    await backend.stop()


async def connect(edge) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", edge.port))
    return client


async def flood(client: socket.socket, start: bytes, piece: bytes) -> None:
    """Send for ever, never read."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        await loop.sock_sendall(client, start)
        while True:
            await loop.sock_sendall(client, piece)


async def innocent_latencies(edge, count: int) -> list[float]:
    """Ask one keep-alive connection's worth of questions, one after the other."""
    taken = []
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    for _ in range(count):
        started = time.perf_counter()
        writer.write(HEALTH)
        await reader.readuntil(b'"live"}')
        taken.append(time.perf_counter() - started)
    writer.close()
    return taken


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"", HEALTH * 1_000, id="pipelines-health"),
        pytest.param(b"", NO_KEY * 1_000, id="pipelines-without-a-key"),
        pytest.param(
            b"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n" * 10_000,
            id="one-byte-chunks",
        ),
        pytest.param(
            b"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"T: x\r\n" * 10_000,
            id="endless-trailers",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: " + b"x" * 60_000, id="endless-head"),
    ],
)
async def test_floods_of_clients_that_never_read_stay_within_their_bound(running, start, piece):
    async def never_reads(head, reader, writer):
        await asyncio.sleep(3_600)
        return False

    running.upstream.script = never_reads
    await innocent_latencies(running, 100)
    before = await running.rss()
    clients = [await connect(running) for _ in range(CLIENTS)]
    start = start.replace(b"{key}", running.key.encode())
    floods = [asyncio.create_task(flood(client, start, piece)) for client in clients]
    try:
        latencies = await innocent_latencies(running, 300)
        grown = await running.rss() - before
    finally:
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        for client in clients:
            client.close()
    quantiles = statistics.quantiles(latencies, n=100)
    print(
        f"grown {grown / MIB:.1f} MiB with {CLIENTS} clients; "
        f"others p50 {quantiles[49] * 1e3:.2f} ms, p99 {quantiles[98] * 1e3:.2f} ms"
    )
    assert grown < CLIENTS * CONNECTION_BYTES_MAX + NOISE_BYTES


async def test_aborted_slow_downloads_leave_nothing_behind(running):
    body = b"x" * (4 * MIB)

    async def large(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return False

    running.upstream.script = large
    request = f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {running.key}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()

    async def abort_one() -> None:
        client = await connect(running)
        await loop.sock_sendall(client, request)
        await loop.sock_recv(client, 1_000)
        client.close()

    async def abort_many(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(abort_one() for _ in range(20)))
        await running.backend.metering.wait_for(1)

    await abort_many(5)
    before = await running.rss()
    await abort_many(25)
    gc.collect()
    grown = await running.rss() - before
    print(f"grown {grown / MIB:.1f} MiB after 500 aborted downloads")
    assert grown < 64 * 1024 * 500
