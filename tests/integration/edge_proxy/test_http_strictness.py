from __future__ import annotations

import pytest

from tests.integration.edge_proxy.conftest import parse_answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="cl-te",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            id="te-cl",
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", id="two-cl"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", id="cl-list"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", id="cl-sign"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", id="empty-te"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", id="blank-te"),
        pytest.param(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="te-in-1.0"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="te-twice",
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", id="underscore"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-Any_Name: 1\r\n\r\n", id="underscore-any"),
        pytest.param(GET + b"X: a\r\n b\r\n\r\n", id="obs-fold"),
        pytest.param(GET + b"X: a\nY: b\r\n\r\n", id="bare-lf"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="only-lf"),
        pytest.param(GET + b"X: a\rY: b\r\n\r\n", id="bare-cr"),
        pytest.param(GET + b"X: a\x00b\r\n\r\n", id="nul"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", id="space-colon"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: \r\n\r\n", id="empty-host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", id="host-list"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", id="host-path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", id="host-userinfo"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", id="host-twice"),
        pytest.param(b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", id="host-and-target"),
        pytest.param(b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", id="encoded-slash"),
        pytest.param(b"GET /%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", id="encoded-dots"),
        pytest.param(b"GET /%252e%252e/b HTTP/1.1\r\nHost: a\r\n\r\n", id="twice-encoded"),
        pytest.param(b"GET //a HTTP/1.1\r\nHost: a\r\n\r\n", id="empty-segment"),
        pytest.param(b"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", id="dot-segment"),
        pytest.param(b"GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n", id="dot-segment-parameter"),
        pytest.param(b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", id="backslash"),
        pytest.param(b"GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", id="encoded-backslash"),
        pytest.param(b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", id="encoded-nul"),
        pytest.param(b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", id="bad-escape"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", id="asterisk"),
        pytest.param(b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", id="connect-path"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", id="connect"),
    ],
)
async def test_ambiguous_request_is_400_and_the_connection_closed(edge, raw):
    # A second request behind it must never be looked at.
    received = await edge.raw(raw + b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = parse_answer(received)
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert received.count(b"HTTP/1.1 ") == 1
    assert edge.upstream.heads == []


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (GET + b"Expect: 200-ok\r\n\r\n", 417),
        (b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ],
)
async def test_unusable_request_has_its_own_status(edge, raw, status):
    assert parse_answer(await edge.raw(raw)).status == status


@pytest.mark.parametrize(
    "body",
    [b"5\nhello\r\n0\r\n\r\n", b"zz\r\n", b"5\r\nhelloXX0\r\n\r\n", b"-1\r\n", b"0x5\r\nhello\r\n", b"1" * 300],
)
async def test_broken_chunked_body_is_400_and_closed(edge, body):
    head = f"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = parse_answer(await edge.raw(head + body))
    assert (answer.status, answer.headers["connection"]) == (400, "close")


async def test_absolute_form_target_is_taken_where_it_names_the_same_host(edge):
    raw = f"GET http://a.test/p?q HTTP/1.1\r\nHost: A.test\r\nConnection: close\r\nX-API-Key: {edge.key}\r\n\r\n"
    assert parse_answer(await edge.raw(raw.encode())).status == 200
    assert edge.upstream.heads[0].startswith(b"GET /p?q HTTP/1.1\r\n")
