"""How a request ends that no upstream answered whole.

There are three ways: `refuse` (the edge answers by itself), `break_off` (the answer had begun; the connection is reset,
so that nobody takes it for whole) and `client_left` (there is nobody to answer). Each of them records the event.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog
from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.http1.client.connection import UpstreamBusy, UpstreamTimedOut
from edge_proxy.http1.server.protocol import ClientConnection
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.limiter.header_fields import limit_lines
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.answers import CONNECTION_CLOSE, DateLine, options_answer, plain_answer, problem_answer, traced
from edge_proxy.pipeline.exchange import Exchange, described
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.record import Recorder
from edge_proxy.process.metrics import WorkerMetrics

# What proxies write down for a client that was gone before it had an answer; nobody was sent it.
CLIENT_CLOSED_REQUEST: Final = 499
NO_CONTENT: Final = 204

log = structlog.get_logger()


class Endings:
    """Ends requests.

    Args:
        recorder: Writes the event before the answer ends.
        metrics: What is counted.
        now_us: Wall time in microseconds.
    """

    def __init__(self, *, recorder: Recorder, metrics: WorkerMetrics, now_us: Callable[[], int]) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._now_us = now_us
        self._date = DateLine()

    async def refuse(self, exchange: Exchange, refused: Refused) -> None:
        """Answer by ourselves; where the upstream's answer had begun, break it off instead."""
        if exchange.is_started:
            await self.break_off(exchange)
            return
        client, problem = exchange.client, refused.problem
        self._metrics.problems[problem.name] += 1
        exchange.status = problem.status
        exchange.keep_alive = client.keeps_alive(exchange.head) and not refused.close
        limits = b""
        if exchange.verdict is not None:
            limits = limit_lines(exchange.policy, exchange.verdict, self._now_us() / 1e6)
        answer, exchange.response_bytes = problem_answer(
            problem,
            refused.detail,
            exchange.id_text,
            headers=refused.headers + limits + exchange.cors_lines,
            date=self._date.get(),
            keep_alive=exchange.keep_alive,
            with_body=exchange.head.method != "HEAD",
        )
        await self._recorder.record_quietly(exchange)
        client.write(answer)

    async def upstream_lost(self, exchange: Exchange, lost: Exception) -> None:
        """Answer for an upstream that did not."""
        if exchange.is_started:
            log.warning("answer_broken_off", **described(exchange), reason=reason_of(lost))
            await self.break_off(exchange)
            return
        problem, exchange.outcome = problems.UPSTREAM_UNREACHABLE, events.OUTCOME_UPSTREAM_UNREACHABLE
        if isinstance(lost, UpstreamTimedOut):
            problem, exchange.outcome = problems.UPSTREAM_TIMEOUT, events.OUTCOME_UPSTREAM_TIMEOUT
        elif isinstance(lost, UpstreamBusy):
            problem = problems.UPSTREAM_BUSY
        log.warning("upstream_lost", **described(exchange), problem=problem.name, reason=reason_of(lost))
        await self.refuse(exchange, Refused(problem))

    def preflight(self, exchange: Exchange) -> None:
        """Answer a preflight: it has no key, so there is nothing to record."""
        client = exchange.client
        exchange.status = NO_CONTENT
        exchange.duration_us = exchange.elapsed_us()
        exchange.keep_alive = client.keeps_alive(exchange.head)
        client.write(
            b"".join(
                (
                    b"HTTP/1.1 204 No Content\r\n",
                    self._date.get(),
                    b"X-Request-Id: %b\r\n" % exchange.id_text.encode("ascii"),
                    exchange.cors_lines,
                    b"" if exchange.keep_alive else CONNECTION_CLOSE,
                    b"\r\n",
                )
            )
        )

    async def break_off(self, exchange: Exchange) -> None:
        """Reset the client's connection inside an answer."""
        exchange.outcome = events.OUTCOME_UPSTREAM_ABORTED
        exchange.keep_alive = False
        exchange.client.abort()
        await self._recorder.record_quietly(exchange)

    async def client_left(self, exchange: Exchange) -> None:
        """Write down that the client was gone before it had the whole answer."""
        exchange.keep_alive = False
        if exchange.has_upstream_answer:
            exchange.outcome = events.OUTCOME_CLIENT_LEFT_DURING_ANSWER
        else:
            exchange.status = CLIENT_CLOSED_REQUEST
            exchange.outcome = events.OUTCOME_CLIENT_LEFT_BEFORE_ANSWER
        await self._recorder.record_quietly(exchange)

    def not_recorded(self, exchange: Exchange) -> None:
        """Reset the client's connection: an answer that cannot be recorded must not look whole."""
        self._recorder.count_lost()
        exchange.keep_alive = False
        exchange.client.abort()

    def refuse_early(self, client: ClientConnection, refused: Refused, request_id: str) -> None:
        """Answer something that was not even a request; without a key there is nothing to record."""
        self._metrics.problems[refused.problem.name] += 1
        answer, _ = problem_answer(
            refused.problem,
            refused.detail,
            request_id,
            headers=refused.headers,
            date=self._date.get(),
            keep_alive=False,
            with_body=True,
        )
        client.write(answer)

    def options(self, client: ClientConnection, head: RequestHead) -> bool:
        """Answer what a client asks this server about itself (RFC 9110 section 9.3.7)."""
        keep_alive = client.keeps_alive(head)
        client.write(options_answer(date=self._date.get(), keep_alive=keep_alive))
        return keep_alive

    async def trace(self, exchange: Exchange) -> None:
        """Send a TRACE request back as it arrived, without its secrets (RFC 9110 section 9.3.8)."""
        client, head = exchange.client, exchange.head
        exchange.status = HTTPStatus.OK
        exchange.keep_alive = client.keeps_alive(head)
        body = traced(head)
        exchange.response_bytes = len(body)
        answer = plain_answer(
            HTTPStatus.OK, "message/http", body, date=self._date.get(), keep_alive=exchange.keep_alive
        )
        await self._recorder.record(exchange)
        client.write(answer)

    def health(self, client: ClientConnection, head: RequestHead, status: int, body: bytes) -> bool:
        """Answer a health question; return whether the connection goes on."""
        keep_alive = client.keeps_alive(head)
        answer = plain_answer(status, "application/json", body, date=self._date.get(), keep_alive=keep_alive)
        client.write(answer if head.method == "GET" else answer[: answer.index(b"\r\n\r\n") + 4])
        return keep_alive


def reason_of(lost: Exception) -> str:
    """Return why an upstream did not answer, for logs."""
    match lost:
        case UpstreamTimedOut():
            return str(lost) or "did not answer or did not go on in time"
        case UpstreamBusy():
            return "has as many connections as it may have"
        case _:
            return str(lost)
