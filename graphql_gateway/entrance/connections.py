"""The gateway's connections: aiohttp's HTTP/1.1 protocol, bounded, and silent about what it could not read.

aiohttp parses. This module adds what stands between strangers and memory:

- A request's head is complete within `head_seconds` of its first byte, and the first one within that time of the
  connection. The timer starts once and does not move, so one byte a second gains nothing. Where the next head begins in
  the packet that ends a request, aiohttp alone knows; such a half head ends with the idle time.
- A connection without a request in hand is closed after `idle_seconds`.
- A client that does not read its answer holds at most the transport's buffer, and for `stall_seconds`.
- Connections are counted, in all and per address; whoever has too many is told so and closed. Our own proxies stand for
  many clients, so they count only in all.

What aiohttp cannot read, it answers and logs word for word: a header line with a token in it, a chunk of a body with a
password, the library's version. Here such a request is answered with a problem in our words, and the log holds the
reason and where the code was, never what the client sent. Everything runs on the event loop; there are no locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from aiohttp import http_exceptions, web

from graphql_gateway import errors, metrics
from graphql_gateway.callers.addresses import Network, is_trusted, network_of
from graphql_gateway.entrance.http import (
    HEAD_BYTES_MAX,
    REQUEST_ID_HEADER,
    failure_of,
    fixed_headers,
    problem_bytes,
    problem_response,
)
from graphql_gateway.failure import Failure
from graphql_gateway.traces import frames_of
from mesh.ids import IdSource
from mesh.rpc.errors import InternalError, RpcError

LINE_BYTES_MAX: Final = 8_190
FIELDS_MAX: Final = 64
LINGER_SECONDS: Final = 5.0
"""How long a body that nobody wants is read before the connection is closed, so that the answer arrives."""

BACKLOG: Final = 512
RETRY_SECONDS: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntranceLimits:
    """What one connection, one address and all of them may hold.

    Attributes:
        head_seconds: From a head's first byte to its last.
        idle_seconds: A connection without a request.
        stall_seconds: An answer that the client does not read.
        connections_max: Open connections.
        connections_per_address_max: Open connections of one address, for IPv6 of one /64.
    """

    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    stall_seconds: float = 30.0
    connections_max: int = 4_096
    connections_per_address_max: int = 128


class Connections:
    """Counts open connections.

    Args:
        limits: How many there may be.
        trusted_proxies: Networks whose connections count only in all.
    """

    def __init__(self, limits: EntranceLimits, trusted_proxies: Sequence[Network]) -> None:
        self._limits = limits
        self._trusted_proxies = trusted_proxies
        self._by_network: Counter[str] = Counter()
        self._open = 0

    def enter(self, peer: str) -> bool:
        """Count a connection, or return False where there are too many."""
        network = network_of(peer)
        proxied = is_trusted(peer, self._trusted_proxies)
        if self._open >= self._limits.connections_max:
            return False
        if not proxied and self._by_network[network] >= self._limits.connections_per_address_max:
            return False
        self._open += 1
        self._by_network[network] += 1
        return True

    def leave(self, peer: str) -> None:
        """Count a connection no longer."""
        network = network_of(peer)
        self._open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]

    def __len__(self) -> int:
        return self._open


class EntranceProtocol(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's server, which knows the application.
        loop: The event loop.
        limits: Bounds.
        connections: All connections.
        ids: Where the ids of unreadable requests come from.
        hsts: Whether answers tell browsers to stay on HTTPS.
    """

    __slots__ = (
        "_connections",
        "_entered",
        "_finished_count",
        "_head_bytes",
        "_head_timer",
        "_hsts",
        "_ids",
        "_limits",
        "_peer",
        "_stall_timer",
    )

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: EntranceLimits,
        connections: Connections,
        ids: IdSource,
        hsts: bool,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for "no access log" and does not say so
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=FIELDS_MAX,
            lingering_time=LINGER_SECONDS,
            # A small packed body may unpack to anything. Nobody needs to pack requests of this size.
            auto_decompress=False,
        )
        self._limits = limits
        self._connections = connections
        self._ids = ids
        self._hsts = hsts
        self._peer = ""
        self._entered = False
        self._finished_count = 0
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or refuse it where there are too many."""
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._entered = self._connections.enter(self._peer)
        if self._entered:
            super().connection_made(transport)
            self._start_head_timer()
        else:
            self._answer_and_close(transport, errors.TooManyConnections(retry_after_seconds=RETRY_SECONDS))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of everything."""
        self._stop_head_timer()
        self._stop_stall_timer()
        if self._entered:
            self._entered = False
            self._connections.leave(self._peer)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; where it is part of a head, the head's time and size are bounded."""
        if not self._entered:
            return
        in_head = self._is_idle()
        if in_head and data:
            self._head_bytes += len(data)
            self._start_head_timer()
        super().data_received(data)
        if not self._is_idle():
            self._head_bytes = 0
            self._stop_head_timer()
        elif in_head and self._head_bytes > HEAD_BYTES_MAX and self.transport is not None:
            self._answer_and_close(self.transport, errors.HeadTooLarge())

    def pause_writing(self) -> None:
        """Start to lose patience with a client that does not read."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_later(self._limits.stall_seconds, self._stalled)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._stop_stall_timer()
        super().resume_writing()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer: ours where it is an error page of aiohttp's. An unreadable body ends the connection."""
        if isinstance(resp, web.HTTPException):
            resp = self._problem(failure_of(resp), str(self._ids.uuid7()))
        if request.content.exception() is not None:
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._finished_count += 1

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client
    ) -> web.StreamResponse:
        """Answer what could not be read, or a crash outside of every handler, in our own words."""
        failure = Failure.of(_reason(status, exc))
        request_id = str(self._ids.uuid7())
        say = log.error if failure.http_status >= 500 else log.info
        say("request_unreadable", request_id=request_id, reason=failure.reason, status=failure.http_status)
        if failure.http_status >= 500:
            log.error("request_crashed", request_id=request_id, frames=frames_of(exc))
        metrics.refused(failure.reason.lower())
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; there cannot be another")
        return self._problem(failure, request_id)

    def log_exception(self, *_arguments: Any, **named: Any) -> None:
        """Log where a connection failed, and nothing of what it carried."""
        log.error("connection_failed", frames=frames_of(named.get("exc_info")))

    def _problem(self, failure: Failure, request_id: str) -> web.Response:
        response = problem_response(failure, request_id)
        response.headers.update({**fixed_headers(hsts=self._hsts), REQUEST_ID_HEADER: request_id})
        response.force_close()
        return response

    def _is_idle(self) -> bool:
        return self._request_count == self._finished_count

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is None:
            return
        if self._head_bytes:
            self._answer_and_close(self.transport, errors.HeadTooSlow())
        else:
            self.force_close()

    def _stalled(self) -> None:
        self._stall_timer = None
        if self.transport is not None:
            metrics.refused("client_stalled")
            self.transport.abort()

    def _answer_and_close(self, transport: asyncio.BaseTransport, error: RpcError) -> None:
        """Answer without a request: no handler has seen one."""
        failure = Failure.of(error)
        metrics.refused(failure.reason.lower())
        # uvloop's transports write like asyncio's and are not derived from them.
        cast("asyncio.WriteTransport", transport).write(problem_bytes(failure, str(self._ids.uuid7()), hsts=self._hsts))
        self.force_close()
        transport.close()


class EntranceSite(web.BaseSite):
    """A listening socket whose connections are `EntranceProtocol`s.

    Args:
        runner: Runs the application.
        host: Where to listen.
        port: 0 for any.
        limits: Bounds.
        trusted_proxies: Networks of our own proxies.
        ids: Where the ids of unreadable requests come from.
        hsts: Whether answers tell browsers to stay on HTTPS.
    """

    __slots__ = ("_host", "_hsts", "_ids", "_limits", "_port", "connections")

    def __init__(
        self,
        runner: web.AppRunner,
        *,
        host: str,
        port: int,
        limits: EntranceLimits,
        trusted_proxies: Sequence[Network],
        ids: IdSource,
        hsts: bool,
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._host = host
        self._port = port
        self._limits = limits
        self._ids = ids
        self._hsts = hsts
        self.connections = Connections(limits, trusted_proxies)

    @property
    def name(self) -> str:
        """Return where it listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner has to be set up first")
        loop = asyncio.get_running_loop()

        def protocol() -> EntranceProtocol:
            return EntranceProtocol(
                server,
                loop=loop,
                limits=self._limits,
                connections=self.connections,
                ids=self._ids,
                hsts=self._hsts,
            )

        self._server = await loop.create_server(protocol, self._host, self._port, backlog=self._backlog)


def _reason(status: int, exc: BaseException | None) -> RpcError:
    if isinstance(exc, http_exceptions.LineTooLong):
        return errors.HeadTooLarge()
    if status < 500:
        return errors.RequestNotReadable()
    return InternalError()
