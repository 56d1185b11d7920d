"""Upstreams that lie, seen from the edge's clients."""

from __future__ import annotations

import asyncio
import socket

import pytest
from structlog.testing import capture_logs
from tollway.events.v1 import usage_event_pb2 as events

from tests.support.edge_fakes import answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SECOND = b"HTTP/1.1 201 Created\r\nSet-Cookie: stolen=1\r\nContent-Length: 6\r\n\r\npoison"


async def test_two_answers_in_one_read_are_the_first_one_and_a_closed_connection(edge):
    edge.upstream.script = answer(OK + SECOND)
    got = await edge.request("/x")
    assert (got.status, got.body) == (200, b"hello")
    assert "set-cookie" not in got.headers
    edge.upstream.script = answer(OK)
    assert (await edge.request("/x")).body == b"hello"
    assert edge.upstream.connections == 2


async def test_trailers_do_not_become_fields_of_the_answer(edge):
    edge.upstream.script = answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSet-Cookie: stolen=1\r\n\r\n"
    )
    got = await edge.request("/x")
    assert (got.status, got.body) == (200, b"hello")
    assert "set-cookie" not in got.headers


async def test_an_answer_with_more_fields_than_are_kept_is_502_and_not_a_shorter_answer(edge):
    many = b"".join(b"X-%d: y\r\n" % number for number in range(200))
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\n" + many + b"Content-Length: 100\r\n\r\ncut", keep=False)
    assert (await edge.request("/x")).status == 502


@pytest.mark.parametrize("status", [b"099", b"600", b"999"])
async def test_a_status_that_is_none_is_502(edge, status):
    edge.upstream.script = answer(b"HTTP/1.1 " + status + b" Odd\r\nContent-Length: 5\r\n\r\nhello")
    got = await edge.request("/x")
    assert got.status == 502
    (event,) = await edge.events(1)
    assert event.outcome == events.OUTCOME_UPSTREAM_UNREACHABLE


async def test_a_late_body_after_head_does_not_reach_the_next_client(edge):
    edge.worker._sweep.quarantine_seconds = 60.0
    after_head = set()

    async def late(head, reader, writer):
        if head.startswith(b"HEAD"):
            after_head.add(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        else:
            # The body of the answer to HEAD comes just when somebody else uses the connection.
            writer.write(SECOND if writer in after_head else OK)
        return True

    edge.upstream.script = late
    assert (await edge.request("/x", method="HEAD")).status == 200
    got = await edge.request("/x")
    assert (got.status, got.body) == (200, b"hello")


async def test_every_connection_field_of_an_answer_counts(edge):
    edge.upstream.script = answer(
        b"HTTP/1.1 200 OK\r\nConnection: X-One\r\nX-One: 1\r\nX-Two: 2\r\nConnection: close, X-Two\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    got = await edge.request("/x")
    assert got.status == 200
    assert "x-one" not in got.headers
    assert "x-two" not in got.headers


async def test_a_date_is_added_where_the_upstream_sends_none_and_only_there(edge):
    assert (await edge.request("/x")).headers["date"].endswith(" GMT")
    edge.upstream.script = answer(
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
    )
    got = await edge.request("/x")
    assert got.raw.lower().count(b"\r\ndate:") == 1
    assert got.headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


async def test_an_upstream_that_does_not_read_the_body_is_504_in_time(surroundings):
    edge = surroundings
    edge.routes = edge.routes.replace("idle_ms: 200}", "idle_ms: 200}, body_bytes_max: 100000000")
    await edge.start()
    await edge.healthy()

    async def never_reads(head, reader, writer):
        reader._transport.pause_reading()
        await asyncio.sleep(60)
        return False

    edge.upstream.script = never_reads
    # More than the buffers of both sockets take.
    size = 32 << 20
    head = f"POST /quick HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\nContent-Length: {size}\r\n\r\n"
    async with edge.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(head.encode() + b"x" * size)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 504")
    (event,) = await edge.events(1)
    assert event.outcome == events.OUTCOME_UPSTREAM_TIMEOUT
    # The client was told to wait, too: the edge did not take in what the upstream did not take.
    assert event.request_bytes < size // 4 * 3
    await edge.stop()


async def test_a_client_that_drips_its_body_holds_the_upstream_for_the_routes_total_time_only(surroundings):
    edge = surroundings
    edge.routes = edge.routes.replace("idle_ms: 200}", "idle_ms: 60000, total_ms: 300}")
    await edge.start()
    await edge.healthy()
    head = f"POST /quick HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\nContent-Length: 100000\r\n\r\n"

    async def read_all(head, reader, writer):
        await reader.read()
        return False

    edge.upstream.script = read_all
    async with edge.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(head.encode())

        async def drip():
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 504")
        finally:
            dripping.cancel()
    await edge.stop()


async def test_an_upstream_that_drips_its_answer_is_cut_at_the_routes_total_time(surroundings):
    edge = surroundings
    edge.routes = edge.routes.replace("idle_ms: 200}", "idle_ms: 60000, total_ms: 300}")
    await edge.start()
    await edge.healthy()

    async def drip(head, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"x")
            await asyncio.sleep(0.02)
        return False

    edge.upstream.script = drip
    async with edge.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(f"GET /quick HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(100_000)
    (event,) = await edge.events(1)
    assert event.outcome == events.OUTCOME_UPSTREAM_ABORTED
    await edge.stop()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connect_goes_to_the_next_origin_whatever_the_method(surroundings, method):
    edge = surroundings
    edge.routes = edge.routes.replace(
        'urls: ["${TOLLWAY_UPSTREAM_URL}"]',
        f'urls: ["http://127.0.0.1:{closed_port()}", "${{TOLLWAY_UPSTREAM_URL}}"]',
    )
    await edge.start()
    await edge.healthy()
    edge.upstream.script = answer(OK, keep=False)
    with capture_logs() as lines:
        got = [(await edge.request("/x", method=method, body=b"pay" if method == "POST" else b"")) for _ in range(4)]
    assert [one.status for one in got] == [200] * 4
    assert len(edge.upstream.heads) == 4
    assert len(await edge.events(4)) == 4
    refused = [line for line in lines if line["event"] == "origin_not_connected"]
    # It rests after its first refusal.
    assert 1 <= len(refused) <= 4
    assert refused[0]["route"] == "api"
    await edge.stop()


async def test_the_reason_of_a_502_and_a_504_is_logged_with_request_id_route_and_origin(edge):
    async def silent(head, reader, writer):
        await reader.read()
        return False

    with capture_logs() as lines:
        edge.upstream.script = silent
        slow = await edge.request("/quick?secret=1")
        edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello")
        broken = await edge.request("/x?secret=1")
    assert (slow.status, broken.status) == (504, 502)
    found = {line["problem"]: line for line in lines if line["event"] == "upstream_lost"}
    for problem, got, route in (("upstream-timeout", slow, "quick"), ("upstream-unreachable", broken, "api")):
        line = found[problem]
        assert (line["request_id"], line["route"]) == (got.headers["x-request-id"], route)
        assert line["origin"] == edge.upstream.url
        assert line["reason"]
    assert edge.key not in str(lines)
    assert "secret" not in str(lines)
