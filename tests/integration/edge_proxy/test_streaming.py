from __future__ import annotations

import asyncio

from tollway.events.v1 import usage_event_pb2 as events

from tests.support.edge_fakes import answer, content_length


def post(edge, path="/x", extra=""):
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n{extra}\r\n".encode()


async def read_chunk(reader):
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


async def test_server_sent_events_arrive_one_by_one(edge):
    gate = asyncio.Queue()

    async def script(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (data := await gate.get()) is not None:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")
        return True

    edge.upstream.script = script
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        assert b"transfer-encoding: chunked" in (await reader.readuntil(b"\r\n\r\n")).lower()
        for number in range(3):
            await gate.put(b"data: %d\n\n" % number)
            assert await read_chunk(reader) == b"data: %d\n\n" % number
        # The event is written only with the answer's end.
        assert edge.worker._journal.position == 0
        await gate.put(None)
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        assert edge.worker._journal.position > 0
    (event,) = await edge.events(1)
    assert (event.outcome, event.response_bytes) == (events.OUTCOME_ANSWERED, 27)


async def test_large_bodies_flow_both_ways_with_bounded_memory(edge):
    size = 8 << 20

    echoed = 0

    async def echo(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        nonlocal echoed
        while echoed < content_length(head):
            data = await reader.read(65_536)
            echoed += len(data)
            writer.write(data)
            await writer.drain()
        return True

    edge.upstream.script = echo
    payload = bytes(range(256)) * (size // 256)
    async with edge.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(post(edge, extra=f"Content-Length: {size}\r\n") + payload)
        await reader.readuntil(b"\r\n\r\n")
        # The client does not read: everything must come to rest on bounded buffers.
        await edge.until_still(lambda: echoed)
        connection = next(iter(edge.worker.server.connections))
        assert connection.body is None or connection.body._waiting_bytes < 1 << 20
        received = await reader.readexactly(size)
    assert received == payload
    (event,) = await edge.events(1)
    assert (event.request_bytes, event.response_bytes) == (size, size)


async def test_chunked_request_is_framed_anew(edge):
    seen, has_first = asyncio.Future(), asyncio.Event()

    async def script(head, reader, writer):
        first = await reader.readuntil(b"abc\r\n")
        has_first.set()
        seen.set_result((head, first + await reader.readuntil(b"0\r\n\r\n")))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    edge.upstream.script = script
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(post(edge, extra="Transfer-Encoding: chunked\r\n") + b"3;ext=1\r\nabc\r\n")
        await has_first.wait()
        writer.write(b"2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        # The connection is still good for another request.
        edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.write(f"GET /y HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    head, body = await seen
    assert head.lower().count(b"transfer-encoding: chunked") == 1
    assert b"content-length" not in head.lower()
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


async def test_too_large_body_is_413_by_length_and_by_count(edge):
    by_length = await edge.raw(post(edge, "/small", "Connection: close\r\nContent-Length: 11\r\n") + b"x" * 11)
    assert by_length.startswith(b"HTTP/1.1 413")
    by_count = await edge.raw(
        post(edge, "/small", "Transfer-Encoding: chunked\r\n") + b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n"
    )
    assert by_count.startswith(b"HTTP/1.1 413")


async def test_upstream_that_dies_inside_its_answer_resets_the_client(edge):
    has_arrived = asyncio.Event()

    async def script(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial")
        await has_arrived.wait()
        writer.transport.abort()
        return False

    edge.upstream.script = script
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        received = b""
        try:
            while data := await reader.read(1_000):
                received += data
                if b"partial" in received:
                    has_arrived.set()
        except ConnectionResetError:
            reset = True
        else:
            reset = False
    assert reset
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"partial")
    (event,) = await edge.events(1)
    assert event.outcome == events.OUTCOME_UPSTREAM_ABORTED


async def test_answer_that_ends_with_its_connection_is_chunked_for_the_client(edge):
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", keep=False)
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(23) == b"d\r\nuntil the end\r\n0\r\n\r\n"


async def test_upstream_away_is_502_slow_is_504_and_neither_is_billed(edge):
    async def silent(head, reader, writer):
        await reader.read()  # until the edge has had enough
        return False

    edge.upstream.script = silent
    assert (await edge.request("/quick")).status == 504
    await edge.upstream.stop()
    assert (await edge.request("/x")).status == 502
    first, second = sorted(await edge.events(2), key=lambda event: event.id)
    assert first.outcome == events.OUTCOME_UPSTREAM_TIMEOUT
    assert second.outcome == events.OUTCOME_UPSTREAM_UNREACHABLE
    await edge.until(lambda: len(edge.backend.limiter.give_backs) == 2)


async def test_answer_that_stops_in_the_middle_is_reset_after_the_idle_timeout(edge):
    async def script(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial")
        await reader.read()  # until the edge has had enough
        return False

    edge.upstream.script = script
    async with edge.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(f"GET /quick HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        try:
            await reader.read()
            reset = False
        except ConnectionResetError:
            reset = True
    assert reset


async def test_stale_kept_connection_is_retried_once_as_the_same_event(edge):
    await edge.request("/x")
    await edge.events(1)

    async def close_first(head, reader, writer):
        edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        return False

    edge.upstream.script = close_first
    assert (await edge.request("/x")).status == 200
    assert len(edge.upstream.heads) == 3
    ids = [line for head in edge.upstream.heads[1:] for line in head.split(b"\r\n") if line.startswith(b"X-Request-Id")]
    assert len(set(ids)) == 1
    assert len(await edge.events(2)) == 2


async def test_post_on_a_stale_connection_is_not_sent_twice(edge):
    await edge.request("/x")

    async def close(head, reader, writer):
        return False

    edge.upstream.script = close
    assert (await edge.request("/x", method="POST", body=b"pay")).status == 502
    assert len(edge.upstream.heads) == 2


async def test_client_that_leaves_before_and_during_the_answer(edge):
    release = asyncio.Event()

    async def slow(head, reader, writer):
        if b"/during" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial")
        await release.wait()
        return False

    edge.upstream.script = slow
    for path, wait_for in (("/before", b""), ("/during", b"partial")):
        async with edge.connection() as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
            if wait_for:
                await reader.readuntil(wait_for)
            else:
                await edge.until(lambda: edge.upstream.heads)
    before, during = sorted(await edge.events(2), key=lambda event: event.id)
    release.set()
    assert (before.outcome, before.status) == (events.OUTCOME_CLIENT_LEFT_BEFORE_ANSWER, 499)
    assert (during.outcome, during.status) == (events.OUTCOME_CLIENT_LEFT_DURING_ANSWER, 200)
    await edge.until(lambda: len(edge.backend.limiter.give_backs) == 1)


async def test_upstream_that_answers_before_the_body_is_read_closes_both_connections(edge):
    async def early(head, reader, writer):
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        return True

    edge.upstream.script = early
    raw = await edge.raw(post(edge, extra="Content-Length: 1000000\r\n") + b"x" * 1_000)
    assert raw.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in raw
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert (await edge.request("/x")).status == 200
    assert edge.upstream.connections == 2


async def test_answer_that_is_not_http_is_502(edge):
    edge.upstream.script = answer(b"SSH-2.0-OpenSSH\r\n\r\n", keep=False)
    assert (await edge.request("/x")).status == 502
