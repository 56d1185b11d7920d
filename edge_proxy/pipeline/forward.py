"""The fourth step, first half: the request goes to an origin of the route's upstream.

The head is written at once; a body that has not arrived whole is sent by a task of its own, so that an upstream may
answer before it has read everything. An origin that cannot be connected to is replaced by the next one at once,
whatever the method, because nothing was sent. A kept connection that turns out to be closed is replaced once, where the
request may safely be sent again. What comes back is the second half's, see `relay`.

Every wait has an end: for a connection (`connect_ms`), for the upstream to read on and for the answer to go on
(`idle_ms`), for its first byte (`first_byte_ms`), and for everything together (`total_ms`).
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from edge_proxy.http1.client.connection import UpstreamBusy, UpstreamConnection, UpstreamFailed
from edge_proxy.http1.client.pool import Origin, Sweep
from edge_proxy.http1.server.protocol import CONTINUE
from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.answers import VIA
from edge_proxy.pipeline.client_fields import CREDENTIALS, is_own_key
from edge_proxy.pipeline.exchange import Exchange, described
from edge_proxy.pipeline.generation import UpstreamPool
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.relay import CHUNKED_LINE, LAST_CHUNK, Relay, frame
from edge_proxy.pipeline.tracing import span
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.routing.routes import Route

log = structlog.get_logger()

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
CONNECT_ATTEMPTS_MAX: Final = 3


class Forwarder:
    """Sends requests to upstreams.

    Args:
        sweep: The coarse clock of connections to upstreams.
        relay: Sends answers back.
        metrics: What is counted.
    """

    def __init__(self, *, sweep: Sweep, relay: Relay, metrics: WorkerMetrics) -> None:
        self._sweep = sweep
        self._relay = relay
        self._metrics = metrics

    async def forward(self, exchange: Exchange, route: Route, pool: UpstreamPool) -> None:
        """Have the upstream answer the request.

        Raises:
            UpstreamFailed: It cannot be reached or broke off.
            UpstreamTimedOut: It did not answer in time.
            UpstreamBusy: It has as many connections as it may have.
            ClientLeft: The client is gone.
            Abandoned: The client went while the upstream was waited for.
            Refused: The request's body is too large.
            Unacceptable: The request's body is malformed or too slow.
            JournalBroken: The event could not be written.
        """
        with span("edge.upstream", exchange):
            origin = pool.pick()
            connection = origin.kept()
            if connection is None:
                origin, connection = await self._open(exchange, route, pool, origin)
            pump: asyncio.Task[None] | None = None
            try:
                try:
                    pump = self._send(exchange, route, origin, connection)
                    await connection.head()
                except UpstreamFailed as failed:
                    if not may_retry(failed, exchange):
                        raise
                    origin.release(connection)
                    origin, connection = await self._open(exchange, route, pool, origin)
                    pump = self._send(exchange, route, origin, connection)
                    await connection.head()
                await self._relay.answer(exchange, route, connection)
            finally:
                if pump is not None and not pump.done():
                    # The upstream answered without reading all: neither connection can be used again.
                    pump.cancel()
                    connection.is_reusable = False
                exchange.client.when_left = None
                self._count_excess(exchange, connection)
                origin.release(connection)

    async def _open(
        self, exchange: Exchange, route: Route, pool: UpstreamPool, origin: Origin
    ) -> tuple[Origin, UpstreamConnection]:
        """Open a connection to an origin or, since nothing was sent yet, to the next one that can be had."""
        lost: Exception | None = None
        for candidate in (origin, *pool.others(origin)[: CONNECT_ATTEMPTS_MAX - 1]):
            exchange.origin = candidate.url
            if lost is not None:
                self._metrics.counters["upstream_retries"] += 1
                kept = candidate.kept()
                if kept is not None:
                    return candidate, kept
            try:
                return candidate, await candidate.open(route.connect_timeout_seconds)
            except UpstreamBusy as busy:
                lost = lost or busy
            except UpstreamFailed as failed:
                pool.rest(candidate)
                lost = failed
                log.warning("origin_not_connected", **described(exchange), reason=str(failed))
        assert lost is not None  # noqa: S101 - there is at least one candidate
        raise lost

    def _send(
        self, exchange: Exchange, route: Route, origin: Origin, connection: UpstreamConnection
    ) -> asyncio.Task[None] | None:
        """Send the request; return the task that sends the rest of its body, if there is a rest."""
        client, head = exchange.client, exchange.head
        exchange.origin = origin.url
        message = upstream_head(exchange, route, origin)
        client.when_left = connection.abandon
        if client.is_gone:
            raise ClientLeft
        now = self._sweep.now
        connection.expires = now + route.total_timeout_seconds
        body = client.body
        if body is None or body.is_complete:
            if body is not None:
                message += frame(body.take(), is_chunked=head.is_chunked, is_last=True)
                _check_size(exchange, route)
            connection.deadline = now + route.first_byte_timeout_seconds
            connection.begin(message, head_request=head.method == "HEAD")
            return None
        if head.expects_continue and not body.size:
            client.write(CONTINUE)
        connection.begin(message, head_request=head.method == "HEAD")
        return asyncio.create_task(self._send_body(exchange, route, connection))

    async def _send_body(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        client, is_chunked = exchange.client, exchange.head.is_chunked
        try:
            while data := await client.read_body():
                _check_size(exchange, route)
                connection.write(frame(data, is_chunked=is_chunked, is_last=False))
                await connection.drain(self._sweep.now + route.idle_timeout_seconds)
        except (Refused, Unacceptable, ClientLeft) as error:
            connection.fail(error)
            return
        if is_chunked:
            connection.write(LAST_CHUNK)
        if not connection.has_head:
            connection.deadline = self._sweep.now + route.first_byte_timeout_seconds

    def _count_excess(self, exchange: Exchange, connection: UpstreamConnection) -> None:
        if connection.has_excess:
            self._metrics.counters["upstream_excess"] += 1
            log.warning("upstream_sent_excess", **described(exchange))


def may_retry(failed: UpstreamFailed, exchange: Exchange) -> bool:
    """Tell whether a kept connection went stale under a request that may safely be sent again (RFC 9110 9.2.2)."""
    head = exchange.head
    return failed.is_stale and head.method in IDEMPOTENT_METHODS and not head.has_body


def upstream_head(exchange: Exchange, route: Route, origin: Origin) -> bytes:
    """Return the request's head as the upstream gets it."""
    head = exchange.head
    via = head.values(b"via")
    path = route.upstream_path(head.path)
    parts = [f"{head.method} {path}".encode("ascii"), head.query, b" HTTP/1.1\r\n", origin.host_line, *head.lines]
    parts.append(exchange.client.forwarded_lines(head.host))
    parts.append(b"Via: %b, 1.1 tollway\r\n" % b", ".join(via) if via else VIA)
    parts.append(f"X-Request-Id: {exchange.id_text}\r\ntraceparent: {exchange.traceparent}\r\n".encode("ascii"))
    if exchange.wire is not None:
        parts.append(exchange.wire.internal_lines)
    else:
        # Without a key, credentials are the upstream's business, but for a key of ours that came without need.
        for name, line in CREDENTIALS:
            parts += (line % value for value in head.values(name) if not is_own_key(value))
    if head.is_chunked:
        parts.append(CHUNKED_LINE)
    elif head.content_length is not None:
        parts.append(b"Content-Length: %d\r\n" % head.content_length)
    parts.append(b"\r\n")
    return b"".join(parts)


def _check_size(exchange: Exchange, route: Route) -> None:
    body = exchange.client.body
    if body is not None and body.size > route.body_bytes_max:
        raise Refused(problems.BODY_TOO_LARGE, f"At most {route.body_bytes_max} bytes.", close=True)
