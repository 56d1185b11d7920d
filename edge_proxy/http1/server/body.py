"""A request's body: its framing undone, with a bound on what waits to be read.

The connection feeds bytes in; the pipeline reads chunks out. When more than `WAITING_BYTES_MAX` wait, the connection
stops reading from its socket until the pipeline has caught up. The chunked decoder is strict (RFC 9112 section 7.1):
CRLF only, at most 15 hex digits, extensions and trailers bounded and dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

from edge_proxy.pipeline import problems
from edge_proxy.pipeline.problems import Refused

WAITING_BYTES_MAX: Final = 65_536
CHUNK_LINE_BYTES_MAX: Final = 256
TRAILER_BYTES_MAX: Final = 4_096

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e]*)?")


class ClientLeft(Exception):
    """The client closed its connection before it had the whole answer."""


class ChunkedDecoder:
    """Undoes the chunked coding incrementally."""

    __slots__ = ("_buffer", "_in_trailer", "_left", "is_complete", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._in_trailer = False
        self.is_complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes; after the last chunk, `rest` is what follows the body.

        Raises:
            Refused: The coding is broken; the connection cannot be used any further.
        """
        buffer = self._buffer + data if self._buffer else data
        decoded: list[bytes] = []
        while buffer and not self.is_complete:
            if self._left > 2:
                piece = buffer[: self._left - 2]
                decoded.append(piece)
                buffer = buffer[len(piece) :]
                self._left -= len(piece)
                continue
            if self._left:
                if len(buffer) < self._left:
                    break
                if buffer[: self._left] != b"\r\n"[-self._left :]:
                    raise Refused(problems.BAD_REQUEST, "A chunk is longer than it said.", close=True)
                buffer = buffer[self._left :]
                self._left = 0
                continue
            line, found, after = buffer.partition(b"\r\n")
            if not found:
                self._check_line_length(buffer)
                break
            buffer = after
            self._take_line(line)
        if self.is_complete:
            self.rest, buffer = buffer, b""
        self._buffer = buffer
        return b"".join(decoded)

    def _check_line_length(self, line: bytes) -> None:
        if len(line) > (TRAILER_BYTES_MAX if self._in_trailer else CHUNK_LINE_BYTES_MAX):
            raise Refused(problems.BAD_REQUEST, "A chunk's line is too long.", close=True)

    def _take_line(self, line: bytes) -> None:
        self._check_line_length(line)
        if self._in_trailer:
            self.is_complete = not line
            return
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise Refused(problems.BAD_REQUEST, "A chunk's size is not a hexadecimal number.", close=True)
        size = int(found[1], 16)
        if size:
            self._left = size + 2
        else:
            self._in_trailer = True


class RequestBody:
    """Bytes of one request's body on their way from the connection to the upstream.

    Args:
        content_length: From the head, or None with chunked coding.
        resume: Called when there is room again after `is_full`.
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_error",
        "_left",
        "_resume",
        "_waiter",
        "_waiting_bytes",
        "is_complete",
        "size",
    )

    def __init__(self, content_length: int | None, resume: Callable[[], None]) -> None:
        self._decoder = ChunkedDecoder() if content_length is None else None
        self._left = content_length or 0
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._resume = resume
        self.is_complete = content_length == 0
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Tell whether the connection should stop reading."""
        return self._waiting_bytes > WAITING_BYTES_MAX

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the connection; return those that belong to the next request."""
        if self._decoder is not None:
            piece = self._decoder.feed(data)
            self.is_complete, rest = self._decoder.is_complete, self._decoder.rest
        else:
            piece, rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
            self.is_complete = self._left == 0
        if piece:
            self._chunks.append(piece)
            self._waiting_bytes += len(piece)
            self.size += len(piece)
        self._wake()
        return rest

    def fail(self, error: Exception) -> None:
        """Let the reader know that no more will come."""
        self._error = error
        self._wake()

    def take(self) -> bytes:
        """Return what waits, without waiting for more."""
        data = b"".join(self._chunks)
        was_full = self.is_full
        self._chunks.clear()
        self._waiting_bytes = 0
        if was_full:
            self._resume()
        return data

    async def read(self) -> bytes:
        """Return the next bytes, or none at the end.

        Raises:
            ClientLeft: The client closed the connection inside its body.
            Refused: The framing is broken.
        """
        while not self._chunks and not self.is_complete:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
