"""The fourth step, second half: the upstream's answer goes to the client.

An answer that is there whole leaves in one write. A longer one is streamed with backpressure on both sides. Either way
the bytes that tell its end go out only after the event has been recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.http1.client.connection import NEVER, UpstreamConnection
from edge_proxy.http1.client.pool import Sweep
from edge_proxy.limiter.header_fields import limit_lines
from edge_proxy.pipeline.answers import CONNECTION_CLOSE, VIA, DateLine, forwarded_fields
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.problems import reason_phrase
from edge_proxy.pipeline.record import Recorder
from edge_proxy.routing.routes import Route

LAST_CHUNK: Final = b"0\r\n\r\n"
# Where a route has CORS rules, the upstream's own would contradict them.
_CORS_PREFIX: Final = b"access-control-"
CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


class Relay:
    """Sends the answers of upstreams to clients.

    Args:
        sweep: The coarse clock of connections to upstreams.
        recorder: Writes the event before the answer ends.
        now_us: Wall time in microseconds.
    """

    def __init__(self, *, sweep: Sweep, recorder: Recorder, now_us: Callable[[], int]) -> None:
        self._sweep = sweep
        self._date = DateLine()
        self._recorder = recorder
        self._now_us = now_us

    async def answer(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        """Send the answer whose head has arrived.

        Raises:
            UpstreamFailed: The upstream broke off.
            UpstreamTimedOut: The upstream did not go on in time.
            ClientLeft: The client is gone.
            Abandoned: It went while the upstream was waited for.
            JournalBroken: The event could not be written.
        """
        exchange.upstream_latency_us = exchange.elapsed_us()
        exchange.has_upstream_answer = True
        exchange.status = connection.status
        exchange.outcome = events.OUTCOME_ANSWERED
        if not connection.is_complete:
            await self._stream(exchange, route, connection)
            return
        head = exchange.head
        has_no_body = head.method == "HEAD" or connection.status in {204, 304}
        data = b"" if has_no_body else connection.take()
        framing = _length_line(connection) if has_no_body else b"Content-Length: %d\r\n" % len(data)
        exchange.response_bytes = len(data)
        exchange.keep_alive = exchange.client.keeps_alive(head)
        answer = self._head(exchange, connection, framing) + data
        await self._recorder.record(exchange)
        exchange.client.write(answer)

    async def _stream(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        client, head = exchange.client, exchange.head
        is_chunked = connection.content_length is None and head.minor_version == 1
        framing = CHUNKED_LINE if is_chunked else _length_line(connection)
        exchange.keep_alive = client.keeps_alive(head) and (is_chunked or connection.content_length is not None)
        # The body bytes that came together with the head go out with it.
        data = connection.take()
        exchange.response_bytes += len(data)
        client.write(self._head(exchange, connection, framing) + frame(data, is_chunked=is_chunked, is_last=False))
        exchange.is_started = True
        while True:
            await client.drain()
            connection.deadline = self._sweep.now + route.idle_timeout_seconds
            data = await connection.read()
            connection.deadline = NEVER
            exchange.response_bytes += len(data)
            if connection.is_complete:
                await self._recorder.record(exchange)
                client.write(frame(data, is_chunked=is_chunked, is_last=True))
                return
            client.write(frame(data, is_chunked=is_chunked, is_last=False))

    def _head(self, exchange: Exchange, connection: UpstreamConnection, framing: bytes) -> bytes:
        status = connection.status
        limits = b""
        if exchange.verdict is not None:
            limits = limit_lines(exchange.policy, exchange.verdict, self._now_us() / 1e6)
        lines = forwarded_fields(connection.fields, date=self._date.get())
        if exchange.cors_lines:
            lines = [line for line in lines if line[: len(_CORS_PREFIX)].lower() != _CORS_PREFIX]
        return b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status)),
                *lines,
                framing,
                VIA,
                b"X-Request-Id: %b\r\n" % exchange.id_text.encode("ascii"),
                limits,
                exchange.cors_lines,
                b"" if exchange.keep_alive else CONNECTION_CLOSE,
                b"\r\n",
            )
        )


def frame(data: bytes, *, is_chunked: bool, is_last: bool) -> bytes:
    """Return body bytes as they stand on the wire."""
    if not is_chunked:
        return data
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + LAST_CHUNK if is_last else framed


def _length_line(connection: UpstreamConnection) -> bytes:
    if connection.content_length is None or connection.status == 204:
        return b""
    return b"Content-Length: %d\r\n" % connection.content_length
