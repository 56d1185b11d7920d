from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.http1.server import body as body_module
from edge_proxy.http1.server.body import (
    CHUNKS_PER_TURN_MAX,
    TRAILER_BYTES_MAX,
    WAITING_BYTES_MAX,
    ChunkedDecoder,
    RequestBody,
)
from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable


def decode(wire: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Offer bytes as a connection does: what is not used is offered again, with more behind it."""
    decoder, pieces, buffer, position = ChunkedDecoder(), [], b"", 0
    for size in [*cuts, len(wire)]:
        buffer += wire[position : position + size]
        position += size
        while not decoder.is_complete:
            used = decoder.decode(buffer, 0, pieces)
            buffer = buffer[used:]
            if not used:
                break
    assert decoder.is_complete
    return b"".join(pieces), buffer


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(1, 20), max_size=40),
    st.binary(max_size=10),
    st.sampled_from([b"", b";e=1", b' ; e="q\\"x"', b";a;b=c"]),
)
def test_chunked_body_decodes_the_same_however_it_is_cut(chunks, cuts, rest, extension):
    wire = (
        b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\nT: x\r\n\r\n" + rest
    )
    assert decode(wire, cuts) == (b"".join(chunks), rest)


@pytest.mark.parametrize(
    "wire",
    [
        b"g\r\n",
        b"\r\n",
        b" 5\r\n",
        b"5\r\nhelloX\r",
        b"5\r\nhello\rX",
        b"5\n" + b"x" * 300,
        b"1" * 16 + b"\r\n",
        b"5;\x00\r\n",
        b"5;\r\n",
        b"5;=\r\n",
        b"5;a=\r\n",
        b"5;a b\r\n",
        b'5;a="\r\n',
        b'5;a="b\r\n',
        b"5 \r\n",
        b"5\t;a\rb\r\n",
        b"0\r\nno colon\r\n",
        b"0\r\n : x\r\n",
        b"0\r\nT: a\x00\r\n",
    ],
)
def test_broken_chunked_body_is_refused(wire):
    # Nothing follows, so it is the wire itself that is refused and not what a lenient reader would find behind it.
    with pytest.raises(Unacceptable) as caught:
        decode(wire, [1] * len(wire))
    assert caught.value.status == 400


def repeated(decoder: ChunkedDecoder, wire: bytes, count: int) -> None:
    for _ in range(count):
        decoder.decode(wire, 0, [])


def test_trailers_are_bounded_together_and_not_only_one_by_one():
    decoder = ChunkedDecoder()
    decoder.decode(b"0\r\n", 0, [])
    with pytest.raises(Unacceptable):
        repeated(decoder, b"T: x\r\n", TRAILER_BYTES_MAX)


def test_chunk_extensions_are_bounded_over_the_whole_body():
    with pytest.raises(Unacceptable):
        repeated(ChunkedDecoder(), b"1;" + b"e" * 200 + b"\r\nx\r\n", 1_000)


class CountedBytes(bytes):
    """Counts the bytes that slices copy."""

    copied = 0

    def __getitem__(self, key):
        piece = super().__getitem__(key)
        if isinstance(piece, bytes):
            CountedBytes.copied += len(piece)
        return piece


def test_work_per_turn_is_bounded_and_every_byte_is_copied_once():
    wire = CountedBytes(b"1\r\nx\r\n" * 40_000)
    CountedBytes.copied = 0
    decoder, start, turns = ChunkedDecoder(), 0, 0
    while start < len(wire):
        before, pieces = decoder.chunks, []
        start = decoder.decode(wire, start, pieces)
        assert decoder.chunks - before <= CHUNKS_PER_TURN_MAX
        turns += 1
    assert turns == -(-40_000 // CHUNKS_PER_TURN_MAX)
    assert CountedBytes.copied <= len(wire)


async def test_body_with_a_length_leaves_what_belongs_to_the_next_request():
    body = RequestBody(5, lambda: None)
    assert body.feed(b"abc", 0) == 3
    assert body.feed(b"xxdeGET /", 2) == 4
    assert body.is_complete
    assert (await body.read(), await body.read(), body.size) == (b"abcde", b"", 5)


async def test_full_body_takes_nothing_until_it_is_read():
    taken = []
    body = RequestBody(1 << 20, lambda: taken.append(True))
    assert body.feed(b"x" * WAITING_BYTES_MAX, 0) == WAITING_BYTES_MAX
    assert body.is_full
    assert body.feed(b"x", 0) == 0
    await body.read()
    assert not body.is_full
    assert taken == [True]
    assert body.feed(b"x", 0) == 1


def test_pieces_of_one_byte_count_with_what_keeping_them_costs():
    body = RequestBody(1 << 20, lambda: None)
    pieces = 0
    while not body.is_full:
        body.feed(b"x", 0)
        pieces += 1
    assert pieces <= WAITING_BYTES_MAX // body_module.PIECE_OVERHEAD_BYTES


async def test_reader_of_a_body_learns_that_the_client_left():
    body = RequestBody(5, lambda: None)
    body.feed(b"ab", 0)
    assert await body.read() == b"ab"
    body.fail(ClientLeft())
    with pytest.raises(ClientLeft):
        await body.read()
