"""What the client makes of an answer, on real sockets: good ones whole, bad ones refused, nothing in between."""

from __future__ import annotations

import pytest

from edge_proxy.http1.client.connection import UpstreamFailed
from tests.support.scripted_origin import FIN, KEEP, RESET, Script, scripted

OK = b"HTTP/1.1 200 OK\r\n"
MANY = b"".join(b"X-%d: y\r\n" % number for number in range(199))

WHOLE = {
    "a counted body": (OK + b"Content-Length: 5\r\n\r\nhello", KEEP, b"hello"),
    "an empty body": (OK + b"Content-Length: 0\r\n\r\n", KEEP, b""),
    "leading zeros": (OK + b"Content-Length: 0005\r\n\r\nhello", KEEP, b"hello"),
    "a chunked body": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", KEEP, b"hello"),
    "a coding in capitals": (OK + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", KEEP, b"hello"),
    "chunk extensions": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b;c\r\nhello\r\n0;x\r\n\r\n", KEEP, b"hello"),
    "a long chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n000000005\r\nhello\r\n000\r\n\r\n", KEEP, b"hello"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", KEEP, b"hello"),
    "an end by closing": (OK + b"\r\nhello", FIN, b"hello"),
    "a HTTP/1.0 answer": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", FIN, b"hello"),
    "an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", KEEP, b"hello"),
    "two interim answers": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" * 2
        + OK + b"Content-Length: 5\r\n\r\nhello",
        KEEP,
        b"hello",
    ),
    "200 fields": (OK + MANY + b"Content-Length: 5\r\n\r\nhello", KEEP, b"hello"),
    "no reason phrase": (b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", KEEP, b"hello"),
    "a status nobody registered": (b"HTTP/1.1 299 Huh\r\nContent-Length: 5\r\n\r\nhello", KEEP, b"hello"),
}  # fmt: skip

MALFORMED = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/0.9": b"hello, world\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status 99": b"HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello",
    "status 000": b"HTTP/1.1 000 Low\r\nContent-Length: 5\r\n\r\nhello",
    "status 600": b"HTTP/1.1 600 High\r\nContent-Length: 5\r\n\r\nhello",
    "status 999": b"HTTP/1.1 999 High\r\nContent-Length: 5\r\n\r\nhello",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "switching unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "switching unasked without Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "201 fields": OK + MANY + b"X-More: y\r\nContent-Length: 5\r\n\r\nhello",
    "a head too large": OK + b"X: " + b"y" * 66_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "a head without an end": OK + b"X: " + b"y" * 140_000,
    "two different lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a signed length": OK + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a space inside": OK + b"Content-Length: 5 5\r\n\r\nhello",
    "an empty length": OK + b"Content-Length: \r\n\r\nhello",
    "a length without an end": OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "a length of nineteen digits": OK + b"Content-Length: 1000000000000000000\r\n\r\nhello",
    "a length and a coding": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a coding and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "a coding under the chunked one": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two coding fields": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "a space before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "a folded line": OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "a field without a name": OK + b": x\r\nContent-Length: 5\r\n\r\nhello",
    "a line without a colon": OK + b"nonsense\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in a value": OK + b"X: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    "a bare CR in a value": OK + b"X: a\rSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhello",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "one bare line feed": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello",
    "seventeen interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK + b"Content-Length: 5\r\n\r\nhello",
    "a chunk size that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that overflows": OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "an empty chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it said": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "a chunk without its line end": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhelXX0\r\n\r\n",
    "a chunk shorter than it said": OK + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello\r\n0\r\n\r\n",
    "a chunk line with a bare line feed": OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a chunk line that is too long": OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 5_000 + b"\r\nhello\r\n",
    "a trailer that is no field": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n",
    "trailers that are too large": OK
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    + b"X: yyyyyyyyyy\r\n" * 2_000
    + b"\r\n",
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_good_answer_arrives_whole_however_its_bytes_are_cut(name):
    raw, end, expected = WHOLE[name]
    for pieces in ([raw], [raw[at : at + 1] for at in range(len(raw))] if len(raw) < 500 else [raw[:99], raw[99:]]):
        async with scripted(Script(pieces, end)) as client:
            status, _, body = await client.ask()
            assert (status // 100, body) == (2, expected)


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_answer_fails_and_its_connection_is_not_used_again(name):
    raw = MALFORMED[name]
    for pieces in ([raw], [raw[:20], raw[20:]]):
        async with scripted(Script(pieces, FIN), Script([WHOLE["a counted body"][0]])) as client:
            with pytest.raises(UpstreamFailed):
                await client.ask()
            assert (await client.ask())[2] == b"hello"
            assert client.served.connections == 2


@pytest.mark.parametrize("end", [FIN, RESET])
@pytest.mark.parametrize("name", ["a counted body", "a chunked body", "trailers", "an interim answer"])
async def test_an_answer_cut_at_any_byte_never_passes_as_whole(name, end):
    raw = WHOLE[name][0]
    async with scripted(*(Script([raw[:at]], end) for at in range(len(raw)))) as client:
        for _ in range(len(raw)):
            with pytest.raises(UpstreamFailed):
                await client.ask()


async def test_an_answer_that_ends_by_closing_is_cut_by_a_reset():
    raw = WHOLE["an end by closing"][0]
    async with scripted(*(Script([raw[:at]], RESET) for at in range(len(raw) + 1))) as client:
        for _ in range(len(raw) + 1):
            with pytest.raises(UpstreamFailed):
                await client.ask()


@pytest.mark.parametrize("where", ["same read", "later read"])
@pytest.mark.parametrize(
    "name", ["a counted body", "an empty body", "a chunked body", "trailers", "a status nobody registered"]
)
async def test_what_follows_the_first_answer_is_dropped_with_its_connection(name, where):
    first, _, expected = WHOLE[name]
    second = b"HTTP/1.1 201 Created\r\nSet-Cookie: stolen\r\nContent-Length: 6\r\n\r\npoison"
    pieces = [first + second] if where == "same read" else [first, second]
    async with scripted(Script(pieces), Script([WHOLE["a counted body"][0]])) as client:
        status, fields, body = await client.ask()
        assert (status // 100, body) == (2, expected)
        assert b"Set-Cookie" not in dict(fields)
        await client.until(lambda: not client.origin._idle)
        assert (await client.ask())[2] == b"hello"
        assert client.served.connections == 2


@pytest.mark.parametrize("is_cut", [False, True])
async def test_trailers_never_become_fields(is_cut):
    raw = (
        OK + b"Transfer-Encoding: chunked\r\nA: b\r\n\r\n5\r\nhello\r\n0\r\nSet-Cookie: s\r\nContent-Length: 9\r\n\r\n"
    )
    pieces = [raw[at : at + 1] for at in range(len(raw))] if is_cut else [raw]
    async with scripted(Script(pieces)) as client:
        _, fields, body = await client.ask()
    assert body == b"hello"
    assert [name for name, _ in fields] == [b"Transfer-Encoding", b"A"]


async def test_fields_of_interim_answers_do_not_become_fields():
    raw = b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: s\r\n\r\n" + OK + b"Content-Length: 0\r\nA: b\r\n\r\n"
    async with scripted(Script([raw])) as client:
        _, fields, _ = await client.ask()
    assert [name for name, _ in fields] == [b"Content-Length", b"A"]


@pytest.mark.parametrize(
    ("raw", "is_kept"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", True),
        (OK + b"Content-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n", False),
        (OK + b"Content-Length: 0\r\nConnection: x, Close\r\n\r\n", False),
        (OK + b"Content-Length: 0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
async def test_a_connection_is_kept_only_where_every_connection_field_allows_it(raw, is_kept):
    async with scripted(Script([raw])) as client:
        await client.ask()
        assert (client.origin.kept() is not None) is is_kept


BODILESS = {
    "HEAD": ("HEAD", OK + b"Content-Length: 6\r\n\r\n"),
    "HEAD, chunked": ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "304 with a length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
}


@pytest.mark.parametrize("when", ["same read", "later"])
@pytest.mark.parametrize("name", BODILESS)
async def test_a_body_where_there_must_be_none_never_reaches_the_next_exchange(name, when):
    method, head = BODILESS[name]
    late = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    first = Script([head + late]) if when == "same read" else Script([head], late=late)
    async with scripted(first, Script([WHOLE["a counted body"][0]])) as client:
        assert (await client.ask(method))[2] == b""
        # The connection rests: whoever asks now gets another one.
        assert client.origin.kept() is None
        client.served.may_send_late.set()
        if when == "later":
            await client.served.has_sent_late.wait()
        for _ in range(5):
            assert (await client.ask())[2] == b"hello"
        await client.until(lambda: not client.origin._quarantined)
        assert (await client.ask())[2] == b"hello"
        assert client.served.connections == 2


async def test_a_connection_is_used_again_after_an_honest_answer_without_a_body():
    async with scripted(Script([BODILESS["304"][1]]), Script([WHOLE["a counted body"][0]])) as client:
        assert (await client.ask())[0] == 304
        await client.until(lambda: not client.origin._quarantined)
        assert (await client.ask())[2] == b"hello"
        assert client.served.connections == 1


async def test_an_origin_that_once_sent_a_body_after_a_head_is_not_trusted_with_it_again():
    late = b"poison"
    first = Script([BODILESS["HEAD"][1]], late=late)
    async with scripted(first, Script([BODILESS["HEAD"][1]])) as client:
        await client.ask("HEAD")
        client.served.may_send_late.set()
        await client.until(lambda: client.origin._distrusts_bodiless)
        await client.ask("HEAD")
        assert not client.origin._quarantined
        assert not client.origin._idle


async def test_a_connection_that_is_let_go_of_holds_nothing_of_its_answer():
    async with scripted(Script([OK + b"Content-Length: 100000\r\n\r\n", b"x" * 50_000])) as client:
        connection = await client.acquire()
        connection.begin(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", head_request=False)
        await connection.head()
        await client.until(lambda: connection._chunks)
        connection.abandon()
        client.origin.release(connection)
        assert (connection._chunks, connection._error, connection.fields) == ([], None, [])
