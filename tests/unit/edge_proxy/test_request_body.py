from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.http1.server.body import WAITING_BYTES_MAX, ChunkedDecoder, ClientLeft, RequestBody
from edge_proxy.pipeline.problems import Refused


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(1, 20), max_size=40),
    st.binary(max_size=10),
)
def test_chunked_body_decodes_the_same_however_it_is_cut(chunks, cuts, rest):
    wire = b"".join(b"%x;e=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nT: x\r\n\r\n" + rest
    decoder, decoded, position = ChunkedDecoder(), b"", 0
    for size in [*cuts, len(wire)]:
        piece = wire[position : position + size]
        position += size
        if decoder.is_complete:
            decoder.rest += piece
        elif piece:
            decoded += decoder.feed(piece)
    assert decoder.is_complete
    assert (decoded, decoder.rest) == (b"".join(chunks), rest)


def feed_slowly(decoder: ChunkedDecoder, wire: bytes) -> None:
    for index in range(len(wire)):
        decoder.feed(wire[index : index + 1])


@pytest.mark.parametrize(
    "wire", [b"g\r\n", b"\r\n", b" 5\r\n", b"5\r\nhelloX\r", b"5\n", b"1" * 16 + b"\r\n", b"5;\x00\r\n"]
)
def test_broken_chunked_body_is_refused(wire):
    decoder = ChunkedDecoder()
    with pytest.raises(Refused):
        feed_slowly(decoder, wire + b"x" * 300)


async def test_body_with_a_length_hands_back_what_belongs_to_the_next_request():
    body = RequestBody(5, lambda: None)
    assert body.feed(b"abc") == b""
    assert body.feed(b"deGET /") == b"GET /"
    assert body.is_complete
    assert (await body.read(), await body.read(), body.size) == (b"abcde", b"", 5)


async def test_full_body_says_so_and_resumes_once_it_is_read():
    resumed = []
    body = RequestBody(1 << 20, lambda: resumed.append(True))
    body.feed(b"x" * (WAITING_BYTES_MAX + 1))
    assert body.is_full
    await body.read()
    assert not body.is_full
    assert resumed == [True]


async def test_reader_of_a_body_learns_that_the_client_left():
    body = RequestBody(5, lambda: None)
    body.feed(b"ab")
    assert await body.read() == b"ab"
    body.fail(ClientLeft())
    with pytest.raises(ClientLeft):
        await body.read()
