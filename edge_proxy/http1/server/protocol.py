"""One client connection: bytes in, requests to the pipeline one at a time, answers out.

Framing is decided here and only here: a head ends at the first empty line, a body where its head said. Bytes that
follow belong to the next request and wait, bounded, until the one before has been answered. Each connection is served
by one task, so requests of a connection never overlap, and nothing is cancelled when a client leaves: whoever waits on
its behalf is told through `when_left`, `RequestBody` or `drain`, and the pipeline still journals what happened.

Timeouts are deadlines on a coarse clock that one sweep for all connections compares, ten times a second: a timer per
request would cost more than the request's parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, cast

from edge_proxy.http1.server.body import ClientLeft, RequestBody
from edge_proxy.http1.server.request import HEAD_BYTES_MAX, HeadParser, RequestHead
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.problems import Problem, Refused

PIPELINED_BYTES_MAX: Final = 65_536
HEAD_TIMEOUT_SECONDS: Final = 10.0
BODY_TIMEOUT_SECONDS: Final = 30.0
WRITE_TIMEOUT_SECONDS: Final = 60.0
KEEP_ALIVE_SECONDS: Final = 75.0
DRAIN_IDLE_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 2.0
LINGER_BYTES_MAX: Final = 1 << 20
SWEEP_SECONDS: Final = 0.1
NEVER: Final = float("inf")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_LINGER_RESET: Final = struct.pack("ii", 1, 0)

# An end that only a lenient reader would see: hand it to the parser now, which refuses it.
_LENIENT_END: Final = re.compile(rb"\n\r?\n")

Handler = Callable[["ClientConnection", RequestHead], Awaitable[bool]]
RefuseEarly = Callable[["ClientConnection", Refused], None]


class Server:
    """All client connections of a worker.

    Args:
        handle: Answers one request; returns whether the connection goes on.
        refuse: Answers what was not even a request.
    """

    def __init__(self, handle: Handler, refuse: RefuseEarly) -> None:
        self.handle = handle
        self.refuse = refuse
        self.connections: set[ClientConnection] = set()
        self.is_draining = False
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time()
        self._empty = asyncio.Event()
        self._sweep_handle = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def new_connection(self) -> ClientConnection:
        """Make the protocol of an accepted connection."""
        return ClientConnection(self)

    def forget(self, connection: ClientConnection) -> None:
        """Drop a connection that is gone."""
        self.connections.discard(connection)
        if self.is_draining and not self.connections:
            self._empty.set()

    async def drain(self, timeout_seconds: float) -> None:
        """Let requests finish; connections close with their next answer, idle ones after a short wait."""
        self.is_draining = True
        for connection in self.connections:
            connection.drain_idle()
        try:
            async with asyncio.timeout(timeout_seconds):
                if self.connections:
                    await self._empty.wait()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort()
        self._sweep_handle.cancel()

    def _sweep(self) -> None:
        self.now = now = self.loop.time()
        self._sweep_handle = self.loop.call_later(SWEEP_SECONDS, self._sweep)
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.time_out()


class ClientConnection(asyncio.Protocol):
    """The protocol of one client connection."""

    __slots__ = (
        "_buffer",
        "_can_write",
        "_forwarded",
        "_head_waiter",
        "_is_reading",
        "_lingering_bytes",
        "_parser",
        "_server",
        "_task",
        "_transport",
        "body",
        "deadline",
        "is_gone",
        "key_memo",
        "peer",
        "when_left",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = HeadParser()
        self._buffer = b""
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._task: asyncio.Task[None] | None = None
        self._head_waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._is_reading = True
        self._lingering_bytes: int | None = None
        self._forwarded = ("", b"")
        self.body: RequestBody | None = None
        self.deadline = NEVER
        self.is_gone = False
        self.peer = ""
        self.when_left: Callable[[], None] | None = None
        # The credential last seen here and its digests: the same client sends the same key.
        self.key_memo: tuple[bytes, tuple[bytes, ...]] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "unknown"
        self._server.connections.add(self)
        self.deadline = self._server.now + HEAD_TIMEOUT_SECONDS
        self._task = self._server.loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Give bytes to the body that is being read, else keep them for the next head."""
        body = self.body
        if body is not None and not body.is_complete:
            data = self._feed_body(body, data)
            if not data:
                return
        if self._lingering_bytes is not None:
            self._discard(len(data))
            return
        self._buffer = self._buffer + data if self._buffer else data
        waiter = self._head_waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif len(self._buffer) > PIPELINED_BYTES_MAX:
            self._pause()

    def eof_received(self) -> bool:
        """Treat a half-closed connection as left: who does not listen for an answer does not pay for one."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - why it went does not matter
        """Tell everyone who waits on the client's behalf."""
        self.is_gone = True
        self._server.forget(self)
        if self.body is not None:
            self.body.fail(ClientLeft())
        for waiter in (self._head_waiter, self._can_write):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if self.when_left is not None:
            self.when_left()

    def pause_writing(self) -> None:
        """Remember that the client reads slower than the upstream answers."""
        self._can_write = self._server.loop.create_future()

    def resume_writing(self) -> None:
        """Let the answer go on."""
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the pipeline calls.

    def keeps_alive(self, head: RequestHead) -> bool:
        """Tell whether the connection can serve another request after this one's answer."""
        return head.keep_alive and not self._server.is_draining and (self.body is None or self.body.is_complete)

    def write(self, data: bytes) -> None:
        """Send bytes; the caller minds `drain` for anything long."""
        if not self.is_gone:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough.

        Raises:
            ClientLeft: It closed the connection.
        """
        if self._can_write is not None:
            self.deadline = self._server.now + WRITE_TIMEOUT_SECONDS
            await self._can_write
            self.deadline = NEVER
        if self.is_gone:
            raise ClientLeft

    async def read_body(self) -> bytes:
        """Return the next bytes of the request's body, or none at its end."""
        body = self.body
        if body is None:
            return b""
        self.deadline = self._server.now + BODY_TIMEOUT_SECONDS
        try:
            return await body.read()
        finally:
            self.deadline = NEVER

    def abort(self) -> None:
        """Reset the connection: an answer that broke off must not look whole."""
        if not self._transport.is_closing():
            # Without this the kernel says FIN, which ends an answer without a length as if it were whole.
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self._transport.abort()

    def forwarded_lines(self, host: str) -> bytes:
        """Return `Forwarded` (RFC 7239) and the `X-Forwarded-*` fields for this client."""
        cached_host, lines = self._forwarded
        if not lines or cached_host != host:
            node = f'"[{self.peer}]"' if ":" in self.peer else self.peer
            lines = (
                f'Forwarded: for={node};host="{host}";proto=http\r\n'
                f"X-Forwarded-For: {self.peer}\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Proto: http\r\n"
            ).encode("ascii")
            self._forwarded = (host, lines)
        return lines

    # What the sweep and the drain call.

    def time_out(self) -> None:
        """End what has waited too long: politely where the client can still be told."""
        if self._lingering_bytes is not None or self._can_write is not None:
            self.abort()
        elif self.body is not None and not self.body.is_complete:
            self.deadline = NEVER
            self.body.fail(Refused(problems.REQUEST_TIMEOUT, close=True))
        elif self._buffer:
            self._refuse(problems.REQUEST_TIMEOUT)
        else:
            self._transport.close()

    def drain_idle(self) -> None:
        """Close soon where nothing is going on; a request that is already on its way still gets its answer."""
        if self._head_waiter is not None and not self._buffer:
            self.deadline = min(self.deadline, self._server.now + DRAIN_IDLE_SECONDS)

    async def _serve(self) -> None:
        try:
            while (head := await self._next_head()) is not None:
                if not await self._server.handle(self, head):
                    break
                self.body = None
                self.deadline = self._server.now + (
                    DRAIN_IDLE_SECONDS if self._server.is_draining else KEEP_ALIVE_SECONDS
                )
        except Refused as refused:
            self._server.refuse(self, refused)
        finally:
            self.close()

    async def _next_head(self) -> RequestHead | None:
        while not self.is_gone:
            raw = self._take_head()
            if raw is not None:
                self.deadline = NEVER
                head = self._parser.parse(raw)
                if head.has_body:
                    self._start_body(head)
                return head
            self._head_waiter = self._server.loop.create_future()
            await self._head_waiter
            self._head_waiter = None
            self.deadline = min(self.deadline, self._server.now + HEAD_TIMEOUT_SECONDS)
        return None

    def _take_head(self) -> bytes | None:
        buffer = self._buffer
        if buffer[:1] in b"\r\n" and buffer:
            # Empty lines before a request line are skipped (RFC 9112 section 2.2).
            buffer = self._buffer = buffer.lstrip(b"\r\n")
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > HEAD_BYTES_MAX:
                raise Refused(problems.HEAD_TOO_LARGE, close=True)
            if buffer and _LENIENT_END.search(buffer):
                raise Refused(problems.BAD_REQUEST, "Lines must end with CR and LF.", close=True)
            self._resume()
            return None
        end += 4
        if end > HEAD_BYTES_MAX:
            raise Refused(problems.HEAD_TOO_LARGE, close=True)
        if end == len(buffer):
            self._buffer = b""
            return buffer
        self._buffer = buffer[end:]
        return buffer[:end]

    def _start_body(self, head: RequestHead) -> None:
        body = self.body = RequestBody(None if head.is_chunked else head.content_length, self._resume)
        rest, self._buffer = self._buffer, b""
        if rest:
            self._buffer = body.feed(rest)

    def _feed_body(self, body: RequestBody, data: bytes) -> bytes:
        if self._lingering_bytes is not None:
            self._discard(len(data))
            return b""
        self.deadline = self._server.now + BODY_TIMEOUT_SECONDS if self.deadline != NEVER else NEVER
        try:
            data = body.feed(data)
        except Refused as refused:
            body.fail(refused)
            return b""
        if body.is_full:
            self._pause()
        return data

    def close(self) -> None:
        """Close after everything written has been sent.

        Unread bytes are discarded for a moment, so that no reset overtakes the answer (RFC 9112 section 9.6).
        """
        if self._transport.is_closing():
            return
        if self.body is None or self.body.is_complete:
            self._transport.close()
            return
        self._lingering_bytes = 0
        self.deadline = self._server.now + LINGER_SECONDS
        self._resume()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, size: int) -> None:
        self._lingering_bytes = (self._lingering_bytes or 0) + size
        if self._lingering_bytes > LINGER_BYTES_MAX:
            self.abort()

    def _refuse(self, problem: Problem) -> None:
        self._server.refuse(self, Refused(problem, close=True))
        self._transport.close()

    def _pause(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()
