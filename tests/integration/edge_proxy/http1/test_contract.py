"""What the HTTP server promises to whoever runs it (RFC 9110, RFC 9112)."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from edge_proxy.http1.server.fields import FieldRules
from edge_proxy.http1.server.forwarding import Trust
from edge_proxy.http1.server.options import ServerOptions
from tests.integration.edge_proxy.http1.conftest import GET, SMALL

LOCAL = (ip_network("127.0.0.0/8"),)
RULES = FieldRules(dropped=frozenset({b"x-dropped"}), dropped_prefixes=(b"x-inner-",), apart=frozenset({b"x-apart"}))


def request(start: str, *fields: str, body: str = "") -> bytes:
    return "\r\n".join([start, "Host: a", *fields, "", body]).encode()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Tell whether the server ended the connection without a byte."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def one(site, raw: bytes):
    """Send one request and return its head as the handler got it."""
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(raw)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return site.heads[-1]


async def test_head_reaches_the_handler_in_parts(site):
    head = await one(site, b"GET /a?b=%20 HTTP/1.1\r\nHost: A.Test:80\r\nAccept: x\r\nAccept: y\r\n\r\n")
    assert (head.method, head.path, head.query, head.host) == ("GET", "/a", b"?b=%20", "a.test")
    assert head.lines == [b"Accept: x\r\n", b"Accept: y\r\n"]
    assert (head.has_body, head.keep_alive, head.minor_version, head.ends_here) == (False, True, 1, False)


@pytest.mark.parametrize("options", [ServerOptions(fields=RULES)])
async def test_fields_go_on_are_dropped_or_kept_apart_by_the_rules(site):
    head = await one(
        site,
        request(
            "GET / HTTP/1.1",
            *("X-Dropped: 1", "X-Inner-Any: 1", "X-Apart: 1", "X-Apart: 2", "X-On: 1", "Connection: X-Gone, close"),
            *("X-Gone: 1", "Keep-Alive: 1", "TE: trailers", "Upgrade: x", "X-Forwarded-Prefix: /x", "Forwarded: for=a"),
        ),
    )
    assert head.lines == [b"X-On: 1\r\n"]
    assert head.values(b"x-apart") == [b"1", b"2"]
    assert not head.keep_alive


@pytest.mark.parametrize(
    ("start", "field", "ends_here", "passed"),
    [
        ("OPTIONS * HTTP/1.1", "X: 1", True, b"X: 1\r\n"),
        ("OPTIONS / HTTP/1.1", "Max-Forwards: 0", True, b""),
        ("TRACE / HTTP/1.1", "Max-Forwards: 0", True, b""),
        ("OPTIONS / HTTP/1.1", "Max-Forwards: 7", False, b"Max-Forwards: 6\r\n"),
        ("TRACE / HTTP/1.1", "Max-Forwards: 1", False, b"Max-Forwards: 0\r\n"),
        ("GET / HTTP/1.1", "Max-Forwards: 0", False, b"Max-Forwards: 0\r\n"),
    ],
)
async def test_max_forwards_counts_down_and_ends_here(site, start, field, ends_here, passed):
    head = await one(site, request(start, field))
    assert (head.ends_here, b"".join(head.lines)) == (ends_here, passed)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("OPTIONS / HTTP/1.1", "Max-Forwards: -1"), 400),
        (request("OPTIONS / HTTP/1.1", "Max-Forwards: 1", "Max-Forwards: 1"), 400),
        (request("TRACE / HTTP/1.1", "Content-Length: 1", body="x"), 400),
        (request("CONNECT /x HTTP/1.1"), 400),
        (request("CONNECT a:1 HTTP/1.1"), 400),
        (request("CONNECT http://a/ HTTP/1.1"), 400),
        (request("GET * HTTP/1.1"), 400),
        (b"\r\n" * 5 + GET, 400),
        (b"\n" + GET, 400),
        (b"\r" + GET, 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400),
        (b"SOURCE / ICE/1.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\nHost: a\r\n\r\n", 505),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400),
        (b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
async def test_unusable_head_is_refused_and_ends_the_connection(site, raw, status):
    received = await site.exchange(raw + GET)
    assert [refused.status for refused in site.refusals] == [status]
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert site.heads == []


async def test_white_space_behind_a_value_is_no_part_of_it(site):
    site.respond = site.read_all
    fields = ("Transfer-Encoding: chunked ", "Connection: close ")
    await site.exchange(b"POST / HTTP/1.1\r\nHost: a \r\n" + "\r\n".join([*fields, "", "1\r\nx\r\n0\r\n\r\n"]).encode())
    assert site.bodies == [b"x"]


async def test_a_few_empty_lines_before_a_request_are_skipped(site):
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        for raw in (b"\r\n" + GET, b"\r", b"\n\r\n" + GET):
            writer.write(raw)
            await writer.drain()
        assert await reader.readexactly(2 * len(SMALL)) == 2 * SMALL


async def test_head_and_body_may_come_byte_by_byte(site):
    site.respond = site.read_all
    raw = request("POST /x HTTP/1.1", "Content-Length: 3", body="abc") + request(
        "POST /y HTTP/1.1", "Transfer-Encoding: chunked", body="2;e=f\r\nde\r\n0\r\nT: x\r\n\r\n"
    )
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        for index in range(len(raw)):
            writer.write(raw[index : index + 1])
            await writer.drain()
        await reader.readexactly(2 * len(SMALL))
    assert site.bodies == [b"abc", b"de"]
    assert [head.path for head in site.heads] == ["/x", "/y"]


async def test_unread_body_ends_the_connection_after_the_answer(site):
    received = await site.exchange(request("POST / HTTP/1.1", "Content-Length: 100", body="x") + GET)
    assert received == SMALL
    assert len(site.heads) == 1


async def test_handler_learns_that_the_client_left_inside_a_body(site):
    site.respond = site.read_all
    async with site.connection() as (_, writer):
        writer.write(request("POST / HTTP/1.1", "Content-Length: 100", body="x"))
        await site.until(lambda: site.heads)
    await site.until(lambda: site.failures)
    assert type(site.failures[0]).__name__ == "ClientLeft"


async def test_broken_body_is_told_to_its_reader(site):
    site.respond = site.read_all
    await site.exchange(request("POST / HTTP/1.1", "Transfer-Encoding: chunked", body="zz\r\n"))
    assert [error.status for error in site.failures] == [400]


@pytest.mark.parametrize("options", [ServerOptions(trust=Trust(LOCAL))])
async def test_trusted_proxy_tells_whose_request_it_is_for_each_request(site):
    peers = []

    async def respond(client, head):
        peers.append((client.peer, client.forwarded_lines(head.host).splitlines()[0]))
        return SMALL

    site.respond = respond
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        for fields in (("X-Forwarded-For: 6.6.6.6, 192.0.2.7", "X-Forwarded-Proto: https"), ()):
            writer.write(request("GET / HTTP/1.1", "Forwarded: for=7.7.7.7", *fields))
            await reader.readexactly(len(SMALL))
    assert peers == [
        ("192.0.2.7", b'Forwarded: for=192.0.2.7;host="a";proto=https'),
        ("127.0.0.1", b'Forwarded: for=127.0.0.1;host="a";proto=http'),
    ]


async def test_nobody_is_believed_where_no_proxy_is_trusted(site):
    peers = []

    async def respond(client, head):
        peers.append(client.peer)
        return SMALL

    site.respond = respond
    await one(site, request("GET / HTTP/1.1", "X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7"))
    assert peers == ["127.0.0.1"]


BEHIND_BALANCER = ServerOptions(trust=Trust(LOCAL), proxy_protocol=True, head_timeout_seconds=0.3)


@pytest.mark.parametrize("options", [BEHIND_BALANCER])
@pytest.mark.parametrize("cut", [1, 20, 44])
async def test_proxy_header_says_whose_connection_it_is(site, cut):
    peers = []

    async def respond(client, head):
        peers.append(client.peer)
        return SMALL

    site.respond = respond
    raw = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n" + GET + GET
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(raw[:cut])
        await site.until(lambda: site.server.connections)
        writer.write(raw[cut:])
        await reader.readexactly(2 * len(SMALL))
    assert peers == ["192.0.2.7"] * 2


@pytest.mark.parametrize("options", [BEHIND_BALANCER])
@pytest.mark.parametrize("raw", [GET, b"PROXY TCP4 x y 1 2\r\n" + GET, b"PROXY TCP4 192.0.2.7 ", b""])
async def test_connection_without_a_proxy_header_is_closed_unanswered(site, raw):
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(raw)
        assert await closed(reader)
    assert site.heads == site.refusals == []


@pytest.mark.parametrize("options", [ServerOptions(trust=Trust((ip_network("192.0.2.0/24"),)), proxy_protocol=True)])
async def test_proxy_header_of_a_stranger_is_not_believed(site):
    async with site.connection() as (reader, writer), asyncio.timeout(60):
        writer.write(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n" + GET)
        assert await closed(reader)
    assert site.heads == []


@pytest.mark.parametrize("options", [ServerOptions(connections_per_client_max=3), ServerOptions(connections_max=3)])
async def test_connections_are_capped_and_a_closed_one_makes_room(site):
    async with (
        site.connection() as (reader, writer),
        site.connection(),
        site.connection(),
        asyncio.timeout(60),
    ):
        await site.until(lambda: len(site.server.connections) == 3)
        async with site.connection() as (fourth, _):
            assert await closed(fourth)
        assert site.server.connections_refused == 1
        writer.write(GET)
        assert await reader.readexactly(len(SMALL)) == SMALL
    await site.until(lambda: not site.server.connections)
    await one(site, GET)
    await site.until(lambda: not site.server._per_client)


@pytest.mark.parametrize("options", [ServerOptions(connections_per_client_max=1, trust=Trust(LOCAL))])
async def test_trusted_proxy_may_have_many_connections(site):
    async with site.connection(), site.connection():
        await site.until(lambda: len(site.server.connections) == 2)
        await one(site, GET)


@pytest.mark.parametrize(
    "options", [ServerOptions(connections_per_client_max=1, trust=Trust(LOCAL), proxy_protocol=True)]
)
async def test_clients_behind_the_proxy_protocol_are_capped_one_by_one(site):
    header = b"PROXY TCP4 192.0.2.%d 198.51.100.1 1 2\r\n" + GET
    async with site.connection() as (first, writer), site.connection() as (second, other), asyncio.timeout(60):
        writer.write(header % 7)
        assert await first.readexactly(len(SMALL)) == SMALL
        other.write(header % 8)
        assert await second.readexactly(len(SMALL)) == SMALL
        async with site.connection() as (third, another):
            another.write(header % 7)
            assert await closed(third)
