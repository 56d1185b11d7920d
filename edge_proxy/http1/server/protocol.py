"""One client connection: bytes in, requests to a handler one at a time, answers out.

Framing is decided here and only here: a head ends at the first empty line, a body where its head said. Bytes that
follow belong to the next request and wait, bounded, until the one before has been answered. Each connection is served
by one task, so requests of a connection never overlap, and nothing is cancelled when a client leaves: whoever waits on
its behalf is told through `when_left`, `RequestBody` or `drain`, and the handler still finishes what it began.

No client can hold the event loop. Heads are found by an offset that only moves forward; after `ANSWERS_PER_TURN_MAX`
answers or `HEAD_BYTES_PER_TURN_MAX` bytes of heads the connection waits in `Turns`, and so does a body after
`CHUNKS_PER_TURN_MAX` chunks. No client can fill the memory either: reading stops while more than
`PIPELINED_BYTES_MAX` wait, and the next request is not looked at before the client has read its answers down to
`ANSWER_BYTES_MAX`. `_mind_reading` is the one place that stops and resumes reading; every change of what waits ends
there.

Timeouts are deadlines on a coarse clock that one sweep for all connections compares, ten times a second: a timer per
request would cost more than the request's parsing. A connection has a deadline whenever it waits for its client, also
while it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, cast

from edge_proxy.http1.server import proxy_protocol
from edge_proxy.http1.server.body import RequestBody
from edge_proxy.http1.server.forwarding import group_of
from edge_proxy.http1.server.options import ServerOptions
from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable
from edge_proxy.http1.server.request import HEAD_BYTES_MAX, HeadParser, RequestHead
from edge_proxy.http1.server.turns import Turns

PIPELINED_BYTES_MAX: Final = 65_536
ANSWER_BYTES_MAX: Final = 65_536
ANSWERS_PER_TURN_MAX: Final = 16
HEAD_BYTES_PER_TURN_MAX: Final = 16_384
# Empty lines before a request line are skipped (RFC 9112 section 2.2); nobody needs many.
EMPTY_LINES_MAX: Final = 4
LINGER_BYTES_MAX: Final = 1 << 20
SWEEP_SECONDS: Final = 0.1
NEVER: Final = float("inf")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_LINGER_RESET: Final = struct.pack("ii", 1, 0)
_LINE_ENDS: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"

# An end that only a lenient reader would see: refused now, because the strict end may never come.
_LENIENT_END: Final = re.compile(rb"\n\r?\n")

Handler = Callable[["ClientConnection", RequestHead], Awaitable[bool]]
RefuseEarly = Callable[["ClientConnection", Unacceptable], None]


class Server:
    """All client connections of a worker.

    Args:
        handle: Answers one request; returns whether the connection goes on.
        refuse: Answers what was not even a request.
        options: Patience and bounds.
    """

    def __init__(self, handle: Handler, refuse: RefuseEarly, options: ServerOptions | None = None) -> None:
        self.handle = handle
        self.refuse = refuse
        self.options = options or ServerOptions()
        self.connections: set[ClientConnection] = set()
        self.connections_refused = 0
        self._per_client: dict[str, int] = {}
        self.is_draining = False
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop)
        self.heads = HeadParser(self.options.fields)
        self.now = self.loop.time()
        self._empty = asyncio.Event()
        self._sweep_handle = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def new_connection(self) -> ClientConnection:
        """Make the protocol of an accepted connection."""
        return ClientConnection(self)

    def count_client(self, address: str) -> str | None:
        """Count a connection of a client; return what it counts for, or None where there are too many."""
        group = group_of(address)
        count = self._per_client.get(group, 0)
        if count >= self.options.connections_per_client_max:
            self.connections_refused += 1
            return None
        self._per_client[group] = count + 1
        return group

    def has_room(self) -> bool:
        """Tell whether one more connection may be served."""
        if len(self.connections) < self.options.connections_max:
            return True
        self.connections_refused += 1
        return False

    def forget(self, connection: ClientConnection) -> None:
        """Drop a connection that is gone."""
        self.connections.discard(connection)
        group = connection.client_group
        if group is not None:
            count = self._per_client[group] - 1
            if count:
                self._per_client[group] = count
            else:
                del self._per_client[group]
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
        "_answers_this_turn",
        "_buffer",
        "_can_write",
        "_forwarded",
        "_has_slow_head",
        "_head_bytes_this_turn",
        "_head_waiter",
        "_is_body_queued",
        "_is_reading",
        "_is_trusted",
        "_lingering_bytes",
        "_scanned",
        "_scheme",
        "_server",
        "_socket_peer",
        "_start",
        "_task",
        "_transport",
        "_waited_seconds",
        "body",
        "client_group",
        "deadline",
        "is_gone",
        "memo",
        "peer",
        "when_left",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        # What came and belongs to nobody yet: `_buffer[_start:]`; the head's end is not before `_scanned`.
        self._buffer = b""
        self._start = 0
        self._scanned = 0
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._task: asyncio.Task[None] | None = None
        self._head_waiter: asyncio.Future[None] | None = None
        self._has_slow_head = False
        self._can_write: asyncio.Future[None] | None = None
        self._is_reading = True
        self._is_body_queued = False
        self._answers_this_turn = 0
        self._head_bytes_this_turn = 0
        self._lingering_bytes: int | None = None
        self._waited_seconds = 0.0
        self._forwarded = ("", "", "", b"")
        # Who is at the other end of the socket, or behind it by the PROXY protocol; `peer` is who a request came from.
        self._socket_peer = ""
        self._is_trusted = False
        self._scheme = "http"
        self.client_group: str | None = None
        self.body: RequestBody | None = None
        self.deadline = NEVER
        self.is_gone = False
        self.peer = ""
        self.when_left: Callable[[], None] | None = None
        # The handler's, for what it finds out again and again about the same client: a value, and what follows from it.
        self.memo: tuple[bytes, tuple[bytes, ...]] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=ANSWER_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        # The zone of a link-local address says nothing to anybody further on.
        self._socket_peer = peer[0].partition("%")[0] if isinstance(peer, tuple) else "unknown"
        options = self._server.options
        self.deadline = self._server.now + options.head_timeout_seconds
        has_room = self._server.has_room()
        self._server.connections.add(self)
        if not has_room or not self._introduce(self._socket_peer):
            self._transport.abort()
            return
        self._task = self._server.loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Keep the bytes and let whoever waits for them have a look."""
        if self._lingering_bytes is not None:
            self._discard(len(data))
            return
        if self._start < len(self._buffer):
            self._scanned -= self._start
            self._buffer = self._buffer[self._start :] + data
        else:
            self._scanned = 0
            self._buffer = data
        self._start = 0
        if self.body is not None and not self.body.is_complete:
            if not self._is_body_queued:
                self._feed_body(self.body)
        else:
            self._wake_head()
        if self.body is not None or len(self._buffer) > PIPELINED_BYTES_MAX:
            self._mind_reading()

    def eof_received(self) -> bool:
        """Treat a half-closed connection as left: who does not listen for an answer does not pay for one."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - why it went does not matter
        """Tell everyone who waits on the client's behalf, and let go of its bytes."""
        self.is_gone = True
        self._server.forget(self)
        self._drop_input()
        if self.body is not None:
            self.body.fail(ClientLeft())
        for waiter in (self._head_waiter, self._can_write):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if self.when_left is not None:
            self.when_left()

    def pause_writing(self) -> None:
        """Remember that the client reads slower than it is answered."""
        self._can_write = self._server.loop.create_future()

    def resume_writing(self) -> None:
        """Let the answer go on."""
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the handler calls.

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
            ClientLeft: It closed the connection, or did not read for too long.
        """
        if self._can_write is not None:
            self.deadline = self._server.now + self._server.options.write_timeout_seconds
            await self._can_write
            self.deadline = NEVER
        if self.is_gone:
            raise ClientLeft

    async def read_body(self) -> bytes:
        """Return the next bytes of the request's body, or none at its end.

        Raises:
            ClientLeft: The client closed the connection inside its body.
            Unacceptable: The framing is broken, or the body came too slowly.
        """
        body = self.body
        if body is None:
            return b""
        server, options = self._server, self._server.options
        started = server.now
        # Only waiting for the client counts: a body that the upstream takes slowly is nobody's drip.
        earned = options.body_idle_seconds + body.size / options.body_bytes_per_second_min - self._waited_seconds
        self.deadline = started + min(options.body_idle_seconds, earned)
        try:
            return await body.read()
        finally:
            self.deadline = NEVER
            self._waited_seconds += server.now - started

    def abort(self) -> None:
        """Reset the connection: an answer that broke off must not look whole."""
        if not self.is_gone:
            # Without this the kernel says FIN, which ends an answer without a length as if it were whole.
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self._transport.abort()

    def forwarded_lines(self, host: str) -> bytes:
        """Return `Forwarded` (RFC 7239) and the `X-Forwarded-*` fields for this client."""
        peer, scheme = self.peer, self._scheme
        cached_host, cached_peer, cached_scheme, lines = self._forwarded
        if not lines or cached_host != host or cached_peer != peer or cached_scheme != scheme:
            node = f'"[{peer}]"' if ":" in peer else peer
            lines = (
                f'Forwarded: for={node};host="{host}";proto={scheme}\r\n'
                f"X-Forwarded-For: {peer}\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Proto: {scheme}\r\n"
            ).encode("ascii")
            self._forwarded = (host, peer, scheme, lines)
        return lines

    # What the sweep and the drain call.

    def time_out(self) -> None:
        """End what has waited too long: politely where the client can still be told."""
        if self._lingering_bytes is not None or self._can_write is not None or self._transport.is_closing():
            self.abort()
        elif self.body is not None and not self.body.is_complete:
            self.deadline = NEVER
            self.body.fail(Unacceptable(408, "The request's body did not arrive in time."))
        elif self._head_waiter is not None and self._start < len(self._buffer):
            self._has_slow_head = True
            self._wake_head()
        else:
            self._transport.close()

    def drain_idle(self) -> None:
        """Close soon where nothing is going on; a request that is already on its way still gets its answer."""
        if self._head_waiter is not None and self._start == len(self._buffer):
            self.deadline = min(self.deadline, self._server.now + self._server.options.drain_idle_seconds)

    # One request after the other.

    def _introduce(self, peer: str) -> bool:
        """Take note of who is there; return whether this client may have one more connection."""
        trust = self._server.options.trust
        self._socket_peer = self.peer = peer
        self._is_trusted = trust.covers(peer)
        if self._is_trusted:
            return True
        self.client_group = self._server.count_client(peer)
        return self.client_group is not None

    async def _read_preface(self) -> bool:
        """Read the header of the PROXY protocol; return whether the connection may go on.

        Only a trusted proxy may send one, and without one nothing is served.
        """
        while not self.is_gone and self._is_trusted and not self._has_slow_head:
            try:
                found = proxy_protocol.read(self._buffer)
            except proxy_protocol.NotProxyProtocol:
                return False
            if found is not None:
                self._start, address = found
                return address is None or self._introduce(address)
            # A header is short, so reading has not been stopped.
            self._head_waiter = self._server.loop.create_future()
            await self._head_waiter
            self._head_waiter = None
        return False

    async def _serve(self) -> None:
        server = self._server
        if server.options.proxy_protocol and not await self._read_preface():
            self.abort()
            return
        try:
            while (head := await self._next_head()) is not None:
                if not await server.handle(self, head):
                    break
                self.body = None
                self._waited_seconds = 0.0
                self._answers_this_turn += 1
                if self._can_write is not None or self._is_turn_over():
                    await self._share_turn()
                self.deadline = server.now + (
                    server.options.drain_idle_seconds if server.is_draining else server.options.keep_alive_seconds
                )
        except Unacceptable as refused:
            self._drop_input()
            server.refuse(self, refused)
            self._linger()
        finally:
            self.close()

    async def _share_turn(self) -> None:
        """Wait for a client that does not read its answers, and for everybody else after a turn's worth of them."""
        if self._can_write is not None:
            with contextlib.suppress(ClientLeft):
                await self.drain()
        if self._is_turn_over():
            self._answers_this_turn = self._head_bytes_this_turn = 0
            await self._server.turns.wait()

    def _is_turn_over(self) -> bool:
        return self._answers_this_turn >= ANSWERS_PER_TURN_MAX or self._head_bytes_this_turn >= HEAD_BYTES_PER_TURN_MAX

    async def _next_head(self) -> RequestHead | None:
        server = self._server
        is_begun = False
        while not self.is_gone:
            raw = self._take_head()
            if raw is not None:
                self.deadline = NEVER
                self._head_bytes_this_turn += len(raw)
                head = server.heads.parse(raw)
                if self._is_trusted:
                    self._take_forwarded(head)
                if head.has_body:
                    self._start_body(head)
                return head
            if self._has_slow_head:
                raise Unacceptable(408, "The request's head did not arrive in time.")
            if not is_begun and self._start < len(self._buffer):
                is_begun = True
                self.deadline = server.now + server.options.head_timeout_seconds
            self._answers_this_turn = self._head_bytes_this_turn = 0
            self._head_waiter = server.loop.create_future()
            if not self._is_reading:
                self._mind_reading()
            await self._head_waiter
            self._head_waiter = None
        return None

    def _take_forwarded(self, head: RequestHead) -> None:
        """Ask the trusted proxy at the other end whose request this is, and in which scheme it came."""
        trust = self._server.options.trust
        is_rfc = trust.field == "forwarded"
        values = head.values(b"forwarded" if is_rfc else b"x-forwarded-for")
        self.peer = trust.client_of(self._socket_peer, values)
        self._scheme = trust.scheme_of(values if is_rfc else head.values(b"x-forwarded-proto"))

    def _take_head(self) -> bytes | None:
        buffer, start = self._buffer, self._start
        if start < len(buffer) and buffer[start] in _LINE_ENDS:
            start = self._skip_empty_lines()
        end = buffer.find(_HEAD_END, max(start, self._scanned - 3), start + HEAD_BYTES_MAX)
        if end < 0:
            if len(buffer) - start >= HEAD_BYTES_MAX:
                raise Unacceptable(431)
            if _LENIENT_END.search(buffer, max(start, self._scanned - 2)):
                raise Unacceptable(400, "Lines must end with CR and LF.")
            self._scanned = len(buffer)
            return None
        end += 4
        self._start = self._scanned = end
        return buffer if not start and end == len(buffer) else buffer[start:end]

    def _skip_empty_lines(self) -> int:
        buffer, start = self._buffer, self._start
        for _ in range(EMPTY_LINES_MAX):
            if not buffer.startswith(b"\r\n", start):
                break
            start += 2
        rest = buffer[start : start + 2]
        if rest[:1] == b"\n" or (rest[:1] == b"\r" and rest != b"\r"):
            raise Unacceptable(400, "There must be a request line.")
        self._start = start
        return start

    def _drop_input(self) -> None:
        self._buffer = b""
        self._start = self._scanned = 0

    # The body that is being read.

    def _start_body(self, head: RequestHead) -> None:
        self.body = RequestBody(None if head.is_chunked else head.content_length, self._body_taken)
        if self._start < len(self._buffer):
            self._feed_body(self.body)
        self._mind_reading()

    def _feed_body(self, body: RequestBody) -> None:
        start = len(self._buffer) if body.has_failed else body.feed(self._buffer, self._start)
        if start == len(self._buffer):
            self._drop_input()
            return
        self._start = self._scanned = start
        if body.is_out_of_turn:
            self._queue_body()

    def _body_taken(self) -> None:
        if self._start < len(self._buffer) and self.body is not None and not self.body.is_complete:
            self._queue_body()
        self._mind_reading()

    def _queue_body(self) -> None:
        if not self._is_body_queued:
            self._is_body_queued = True
            self._server.turns.call(self._continue_body)

    def _continue_body(self) -> None:
        self._is_body_queued = False
        body = self.body
        if body is not None and not body.is_complete and self._start < len(self._buffer):
            self._feed_body(body)
            self._mind_reading()

    # Reading and closing.

    def _mind_reading(self) -> None:
        """Read from the socket if and only if there is room for what comes."""
        body = self.body
        has_room = len(self._buffer) - self._start <= PIPELINED_BYTES_MAX and (
            body is None or body.is_complete or not body.is_full
        )
        wants = has_room or self._lingering_bytes is not None
        if wants != self._is_reading and not self._transport.is_closing():
            self._is_reading = wants
            if wants:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def close(self) -> None:
        """Close after everything written has been sent, or after a bounded wait for the client to read it."""
        if self._transport.is_closing() or self._lingering_bytes is not None:
            return
        if (self.body is not None and not self.body.is_complete) or self._start < len(self._buffer):
            self._linger()
            return
        self.deadline = self._server.now + self._server.options.write_timeout_seconds
        self._transport.close()

    def _linger(self) -> None:
        """Say the end, and drop unread bytes for a moment: no reset may overtake the answer (RFC 9112 section 9.6)."""
        if self._transport.is_closing():
            return
        self._lingering_bytes = len(self._buffer) - self._start
        self._drop_input()
        options = self._server.options
        has_unsent = self._transport.get_write_buffer_size() > 0
        self.deadline = self._server.now + (options.write_timeout_seconds if has_unsent else options.linger_seconds)
        self._mind_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, size: int) -> None:
        self._lingering_bytes = (self._lingering_bytes or 0) + size
        if self._lingering_bytes > LINGER_BYTES_MAX:
            self.abort()

    def _wake_head(self) -> None:
        waiter = self._head_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
