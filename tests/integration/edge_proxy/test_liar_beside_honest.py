"""An upstream that lies in every way, under load, beside an honest one whose answers are compared byte by byte."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re

import pytest

from tests.support.edge_fakes import FakeUpstream

CLIENTS = 6
REQUESTS_PER_CLIENT = 60
POISON = b"HTTP/1.1 200 OK\r\nSet-Cookie: poison\r\nContent-Length: 6\r\n\r\npoison"
OK = b"HTTP/1.1 200 OK\r\n"

LIES = (
    OK + b"Content-Length: 5\r\n\r\nhello" + POISON,
    OK + b"Content-Length: 50\r\n\r\nshort",
    OK + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello" + POISON,
    OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + POISON,
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSet-Cookie: poison\r\n\r\n" + POISON,
    OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + POISON,
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloPOISON\r\n",
    OK + b"Transfer-Encoding: chunked, identity\r\n\r\n" + POISON,
    b"HTTP/1.1 204 No Content\r\nContent-Length: 90\r\n\r\n" + POISON,
    b"HTTP/1.1 304 Not Modified\r\n\r\n" + POISON,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + POISON,
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + POISON,
    b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n" + POISON,
    OK + b"X: y\r\n" * 500 + b"Content-Length: 0\r\n\r\n" + POISON,
    OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n" + POISON,
    OK + b"Connection: Content-Type, Date\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello" + POISON,
    OK.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello" + POISON,
    OK + b"Content-Length: 5\r\nX: a\rSet-Cookie: poison\r\n\r\nhello",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"\x00" * 1_000 + POISON,
    b"\r\n\r\n" + POISON,
    b"",
)  # fmt: skip


@pytest.fixture
async def edge(surroundings):
    liar = FakeUpstream()
    await liar.start()
    surroundings.routes = surroundings.routes.replace(
        "  demo:", f"  liar: {{urls: ['{liar.url}'], keep_alive_connections: 4}}\n  demo:"
    ).replace(
        "routes:\n",
        "routes:\n  - {id: lies, match: {path_prefix: /lies}, upstream: liar, "
        "timeouts: {first_byte_ms: 300, idle_ms: 300, total_ms: 2000}}\n",
    )
    surroundings.liar = liar
    await surroundings.start()
    await surroundings.healthy()
    yield surroundings
    await surroundings.stop()
    await liar.stop()


async def test_a_liar_reaches_nobody_elses_answers(edge):
    dice = random.Random(7)

    async def lie(head, reader, writer):
        raw, keep = dice.choice(LIES), dice.random() < 0.7
        while raw:
            size = dice.choice((1, 7, 100, len(raw)))
            writer.write(raw[:size])
            raw = raw[size:]
            await asyncio.sleep(0)
        if dice.random() < 0.2:
            writer.transport.abort()
            return False
        return keep

    async def honest(head, reader, writer):
        name = re.search(rb" /honest/(\S+) ", head)[1]
        body = hashlib.sha256(name).hexdigest().encode() * (1 + name[0] % 50)
        writer.write(OK + b"X-Name: %b\r\nContent-Length: %d\r\n\r\n" % (name, len(body)) + body)
        return True

    edge.liar.script, edge.upstream.script = lie, honest
    lied, is_over = [], asyncio.Event()

    async def client_of_the_liar(number):
        while not is_over.is_set():
            method = dice.choice(("GET", "GET", "HEAD"))
            async with edge.connection() as (reader, writer), asyncio.timeout(60):
                writer.write(
                    f"{method} /lies/{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                    f"X-API-Key: {edge.key}\r\n\r\n".encode()
                )
                try:
                    lied.append(await reader.read())
                except ConnectionResetError:
                    lied.append(b"reset")

    async def innocent(number):
        async with edge.connection() as (reader, writer), asyncio.timeout(60):
            for turn in range(REQUESTS_PER_CLIENT):
                name = f"{chr(97 + (number * 7 + turn) % 26)}-{number}-{turn}".encode()
                writer.write(b"GET /honest/%b HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n\r\n" % (name, edge.key.encode()))
                head = await reader.readuntil(b"\r\n\r\n")
                expected = hashlib.sha256(name).hexdigest().encode() * (1 + name[0] % 50)
                assert head.startswith(b"HTTP/1.1 200 ")
                assert head.count(b"X-Name: %b\r\n" % name) == 1
                assert head.count(b"Content-Length: %d\r\n" % len(expected)) == 1
                assert b"poison" not in head
                assert await reader.readexactly(len(expected)) == expected

    liars = [asyncio.create_task(client_of_the_liar(number)) for number in range(CLIENTS)]
    await asyncio.gather(*(innocent(number) for number in range(CLIENTS)))
    await edge.until(lambda: len(lied) >= 100, 60.0)
    is_over.set()
    await asyncio.gather(*liars)
    assert [raw for raw in lied if raw.count(b"HTTP/1.1 ") > 1] == []
    assert [raw for raw in lied if b"poison" in raw.lower()] == []
    assert edge.worker.metrics.counters["upstream_excess"] > 0
