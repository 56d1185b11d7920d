"""One connection to an upstream, used by one exchange at a time.

The C parser (llhttp) reads the answer. Body bytes wait here, bounded: above `WAITING_BYTES_MAX` the socket is no longer
read until the client has taken them. Whatever happens to the exchange (the upstream closes, a deadline passes, the
client leaves) ends in one place, `fail`, and reaches whoever awaits `head` or `read`.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import httptools

from edge_proxy.http1.server.refusal import ClientLeft

WAITING_BYTES_MAX: Final = 262_144
HEADERS_MAX: Final = 200
HEAD_BYTES_MAX: Final = 65_536
NEVER: Final = float("inf")


class UpstreamFailed(Exception):
    """The upstream could not be reached, broke off, or sent something that is not HTTP.

    Args:
        detail: What happened, for logs.
        is_stale: A pooled connection was closed before a single byte of an answer came.
    """

    def __init__(self, detail: str, *, is_stale: bool = False) -> None:
        super().__init__(detail)
        self.is_stale = is_stale


class UpstreamTimedOut(Exception):
    """The upstream did not answer, or did not go on, in time."""


class UpstreamBusy(Exception):
    """The upstream has as many connections as it may have."""


class UpstreamConnection(asyncio.Protocol):
    """The protocol of one upstream connection."""

    __slots__ = (
        "_body_waiter",
        "_can_write",
        "_chunks",
        "_error",
        "_head_bytes",
        "_head_request",
        "_head_waiter",
        "_informational",
        "_is_reading",
        "_parser",
        "_transport",
        "_waiting_bytes",
        "content_length",
        "deadline",
        "fields",
        "has_head",
        "idle_since",
        "is_complete",
        "is_open",
        "is_reusable",
        "served",
        "status",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.is_open = False
        self.served = 0
        self._error: Exception | None
        self._head_waiter: asyncio.Future[None] | None
        self._body_waiter: asyncio.Future[None] | None
        self._chunks: list[bytes]
        self.fields: list[tuple[bytes, bytes]]
        self.content_length: int | None
        self.is_complete: bool
        self.idle_since = 0.0
        self.deadline = NEVER
        self._is_reading = True
        self._can_write: asyncio.Future[None] | None = None
        self._reset(head_request=False)

    # The exchange.

    def begin(self, head: bytes, *, head_request: bool) -> None:
        """Send a request's head (and whatever of its body stands behind it) and get ready for the answer."""
        if self.served:
            self._reset(head_request=head_request)
        self._head_request = head_request
        self.served += 1
        if self.is_open:
            self._transport.write(head)
        else:
            self._error = UpstreamFailed("closed while idle", is_stale=True)

    def write(self, data: bytes) -> None:
        """Send body bytes."""
        if self.is_open:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the upstream has read enough."""
        if self._can_write is not None:
            await self._can_write

    async def head(self) -> None:
        """Wait for the answer's head; then `status`, `fields` and `content_length` are set.

        Raises:
            UpstreamFailed: The connection broke or the answer is not HTTP.
            UpstreamTimedOut: The deadline passed.
            ClientLeft: Through `fail`.
        """
        while not self.has_head:
            if self._error is not None:
                raise self._error
            self._head_waiter = asyncio.get_running_loop().create_future()
            await self._head_waiter

    def take(self) -> bytes:
        """Return the body bytes that wait, without waiting for more."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._waiting_bytes = 0
        if not self._is_reading and self.is_open:
            self._is_reading = True
            self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """Return the next body bytes, or none at the end. Errors as in `head`."""
        while not self._chunks and not self.is_complete:
            if self._error is not None:
                raise self._error
            self._body_waiter = asyncio.get_running_loop().create_future()
            await self._body_waiter
        return self.take()

    def fail(self, error: Exception) -> None:
        """End the exchange with an error and close the connection."""
        if self._error is None:
            self._error = error
        self.is_reusable = False
        self._wake()
        self.close()

    def client_left(self) -> None:
        """End the exchange because nobody waits for its answer any more."""
        self.fail(ClientLeft())

    def close(self) -> None:
        """Close at once; nothing that is still to be sent matters."""
        self.is_open = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self.is_complete or not self.served:
            # Bytes that nobody asked for: the next answer could not be told from them.
            self.is_reusable = False
            self.close()
            return
        if not self.has_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX + len(data):
                self.fail(UpstreamFailed("the answer's head is too large"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(UpstreamFailed("switched protocols without being asked"))
        except httptools.HttpParserError as error:
            self.fail(UpstreamFailed(f"not HTTP: {error}"))

    def eof_received(self) -> bool:
        """Let the connection close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End an answer that ends with its connection, or fail the exchange."""
        self.is_open = False
        self.is_reusable = False
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.is_complete:
            return
        if error is None and self.has_head and self.content_length is None and not self._is_chunked():
            self.is_complete = True
        elif self._error is None:
            detail = str(error) if error is not None else "closed the connection"
            self._error = UpstreamFailed(detail, is_stale=self.served > 1 and self._head_bytes == 0)
        self._wake()

    def pause_writing(self) -> None:
        """Remember that the upstream reads slower than the client sends."""
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let the body go on."""
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the C parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field."""
        if len(self.fields) < HEADERS_MAX:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Publish the head, unless it is an interim one (1xx)."""
        status = self._parser.get_status_code()
        if status < 200:
            self._informational = True
            return
        self.status = status
        self.has_head = True
        self.is_reusable = self._parser.should_keep_alive()
        self.content_length = self._length()
        if self._head_request or status in {204, 304}:
            self.is_complete = True
            # The parser may wait for a body that a HEAD request does not get; `_reset` makes a new one.
        waiter, self._head_waiter = self._head_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def on_body(self, data: bytes) -> None:
        """Keep body bytes until they are taken."""
        self._chunks.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_MAX and self._is_reading:
            self._is_reading = False
            self._transport.pause_reading()
        self._wake_body()

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        if self._informational:
            self._informational = False
            self.fields = []
            return
        self.is_complete = True
        self._wake_body()

    def _length(self) -> int | None:
        for name, value in self.fields:
            if len(name) == 14 and name.lower() == b"content-length":
                return int(value)
        return None

    def _is_chunked(self) -> bool:
        return any(name.lower() == b"transfer-encoding" for name, _ in self.fields)

    def _reset(self, *, head_request: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head_request = head_request
        self._chunks = []
        self._waiting_bytes = 0
        self._head_bytes = 0
        self._error = None
        self._head_waiter = None
        self._body_waiter = None
        self._informational = False
        self.fields = []
        self.status = 0
        self.content_length = None
        self.has_head = False
        self.is_complete = False
        self.is_reusable = False

    def _wake_body(self) -> None:
        waiter, self._body_waiter = self._body_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake(self) -> None:
        self._wake_body()
        waiter, self._head_waiter = self._head_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
