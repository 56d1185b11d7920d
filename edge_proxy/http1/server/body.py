"""A request's body: its framing undone, with bounds on what waits to be read and on the work of one turn.

The connection offers its buffer and an offset; the body takes what belongs to it and is due, and returns the new
offset. It takes nothing while `WAITING_BYTES_MAX` wait to be read, and at most `CHUNKS_PER_TURN_MAX` chunks of one
offer, because a client chooses how small its chunks are. The chunked decoder is strict (RFC 9112 section 7.1): CRLF
only, at most 15 hex digits, extensions by their grammar. Every byte is looked at once. What is not data is bounded over
the whole body: trailers by `TRAILER_BYTES_MAX`, lines of chunks by an allowance that their own data replenishes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable

WAITING_BYTES_MAX: Final = 65_536
CHUNKS_PER_TURN_MAX: Final = 1_024
CHUNK_LINE_BYTES_MAX: Final = 256
TRAILER_BYTES_MAX: Final = 4_096
# As in Go's net/http: a chunk may have a line of this size for each byte of data, or a longer one now and then.
OVERHEAD_BYTES_MAX: Final = 16_384
OVERHEAD_BYTES_PER_CHUNK: Final = 16
OVERHEAD_BYTES_PER_DATA_BYTE: Final = 2
# What keeping a piece costs beside its bytes: many pieces of one byte must not look small.
PIECE_OVERHEAD_BYTES: Final = 64

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# RFC 9112 section 7.1.1; BWS is allowed where the grammar has it.
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_TRAILER: Final = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")


class ChunkedDecoder:
    """Undoes the chunked coding incrementally."""

    __slots__ = ("_in_trailer", "_left", "_overhead_bytes", "_trailer_bytes", "chunks", "is_complete")

    def __init__(self) -> None:
        # What is still to come of a chunk, its line end included.
        self._left = 0
        self._in_trailer = False
        self._overhead_bytes = 0
        self._trailer_bytes = 0
        self.chunks = 0
        self.is_complete = False

    def decode(self, buffer: bytes, start: int, pieces: list[bytes]) -> int:
        """Append decoded pieces and return the offset behind what was used.

        Stops at the body's end, when bytes are missing, and after `CHUNKS_PER_TURN_MAX` chunks.

        Raises:
            Unacceptable: The coding is broken.
        """
        size, chunks_max = len(buffer), self.chunks + CHUNKS_PER_TURN_MAX
        while start < size and self.chunks < chunks_max:
            left = self._left
            if left > 2:
                end = min(start + left - 2, size)
                pieces.append(buffer[start:end])
                self._left = left - (end - start)
                start = end
            elif left:
                end = min(start + left, size)
                if buffer[start:end] != b"\r\n"[2 - left : 2 - left + end - start]:
                    raise Unacceptable(400, "A chunk is longer than it said.")
                self._left = left - (end - start)
                start = end
            else:
                end = buffer.find(b"\r\n", start, start + self._line_bytes_max() + 2)
                if end < 0:
                    self._check_unfinished(size - start)
                    break
                self._take_line(buffer[start:end])
                start = end + 2
                if self.is_complete:
                    break
        return start

    def _line_bytes_max(self) -> int:
        return TRAILER_BYTES_MAX if self._in_trailer else CHUNK_LINE_BYTES_MAX

    def _check_unfinished(self, line_bytes: int) -> None:
        if line_bytes > self._line_bytes_max() + 1:
            raise Unacceptable(400, "A chunk's line or a trailer is too long.")

    def _take_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._take_trailer(line)
            return
        found = _SIZE.match(line)
        if found is None:
            raise Unacceptable(400, "A chunk's size is not a hexadecimal number.")
        digits = found.end()
        if digits != len(line) and not _EXTENSIONS.fullmatch(line, digits):
            raise Unacceptable(400, "A chunk's extension is malformed.")
        size = int(line[:digits], 16)
        self.chunks += 1
        if not size:
            self._in_trailer = True
            return
        self._left = size + 2
        allowance = OVERHEAD_BYTES_PER_CHUNK + OVERHEAD_BYTES_PER_DATA_BYTE * size
        self._overhead_bytes = max(0, self._overhead_bytes + len(line) + 2 - allowance)
        if self._overhead_bytes > OVERHEAD_BYTES_MAX:
            raise Unacceptable(400, "The body has more chunk extensions than data.")

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.is_complete = True
            return
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise Unacceptable(400, "The trailers are too large.")
        if not _TRAILER.fullmatch(line):
            raise Unacceptable(400, "A trailer is malformed.")


class RequestBody:
    """Bytes of one request's body on their way from the connection to whoever reads them.

    Args:
        content_length: From the head, or None with chunked coding.
        taken: Called when there is room again after `is_full`, or when more can be decoded.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_left",
        "_pieces",
        "_taken",
        "_waiter",
        "_waiting_bytes",
        "is_complete",
        "is_out_of_turn",
        "size",
    )

    def __init__(self, content_length: int | None, taken: Callable[[], None]) -> None:
        self._decoder = ChunkedDecoder() if content_length is None else None
        self._left = content_length or 0
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: ClientLeft | Unacceptable | None = None
        self._taken = taken
        self.is_complete = content_length == 0
        # More could be decoded, but the work of this turn is done.
        self.is_out_of_turn = False
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Tell whether enough waits to be read."""
        return self._waiting_bytes >= WAITING_BYTES_MAX

    @property
    def has_failed(self) -> bool:
        """Tell whether no more will be taken."""
        return self._error is not None

    def feed(self, buffer: bytes, start: int) -> int:
        """Take what is due from the buffer; return the offset behind it. Whoever reads is told of broken framing."""
        if self.is_full:
            return start
        decoder = self._decoder
        if decoder is not None:
            pieces: list[bytes] = []
            chunks = decoder.chunks
            try:
                start = decoder.decode(buffer, start, pieces)
            except Unacceptable as broken:
                self.fail(Unacceptable(broken.status, broken.detail))
                return len(buffer)
            self.is_complete = decoder.is_complete
            self.is_out_of_turn = decoder.chunks - chunks == CHUNKS_PER_TURN_MAX and not self.is_complete
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            end = min(start + self._left, len(buffer))
            piece = buffer[start:end]
            self._left -= len(piece)
            start = end
            self.is_complete = self._left == 0
        if piece:
            self._pieces.append(piece)
            self._waiting_bytes += len(piece) + PIECE_OVERHEAD_BYTES
            self.size += len(piece)
        if piece or self.is_complete:
            self._wake()
        return start

    def fail(self, error: ClientLeft | Unacceptable) -> None:
        """Let the reader know that no more will come; what waits is let go."""
        if self._error is None:
            self._error = error
        self._pieces.clear()
        self._waiting_bytes = 0
        self._wake()

    def take(self) -> bytes:
        """Return what waits, without waiting for more."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting_bytes = 0
        self._taken()
        return data

    async def read(self) -> bytes:
        """Return the next bytes, or none at the end.

        Raises:
            ClientLeft: The client closed the connection inside its body.
            Unacceptable: The framing is broken, or the body came too slowly.
        """
        while not self._pieces:
            if self._error is not None:
                # A new one each time: a stored exception would keep the frames that it passed, and their bytes.
                raise _again(self._error)
            if self.is_complete:
                break
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _again(error: ClientLeft | Unacceptable) -> Exception:
    if isinstance(error, Unacceptable):
        return Unacceptable(error.status, error.detail)
    return ClientLeft()
