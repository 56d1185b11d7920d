"""One request's way, top to bottom: route, key, limit, upstream, record.

Each step is a module of its own; this one tells in which order they run and how a request ends when one of them fails.
Every answer that a client can take for whole is behind its event in the journal: the last bytes go out only after the
append has returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from edge_proxy.http1.client.connection import Abandoned, UpstreamBusy, UpstreamFailed, UpstreamTimedOut
from edge_proxy.http1.server.protocol import ClientConnection
from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.access_log import AccessLog
from edge_proxy.pipeline.admit import Admission
from edge_proxy.pipeline.authenticate import Authenticator
from edge_proxy.pipeline.endings import Endings
from edge_proxy.pipeline.exchange import Exchange, id_text
from edge_proxy.pipeline.forward import Forwarder
from edge_proxy.pipeline.problems import Refused, refused_by_server
from edge_proxy.pipeline.route import Router
from edge_proxy.pipeline.tracing import span
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.routing.overlaps import HEALTH_PATHS
from edge_proxy.usage.journal.writer import JournalBroken
from mesh.ids import IdSource

log = structlog.get_logger()


class Health(Protocol):
    """Answers health questions on the public port."""

    def __call__(self, path: str) -> tuple[int, bytes]:
        """Return status and JSON body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of a request's way, in their order, and its endings."""

    router: Router
    authenticator: Authenticator
    admission: Admission
    forwarder: Forwarder
    endings: Endings


class Pipeline:
    """Serves requests.

    Args:
        steps: What happens to each of them.
        access_log: Writes some of them down.
        metrics: What is counted.
        ids: Request ids.
        now_us: Wall time in microseconds.
        health: Answers on the public port.
    """

    def __init__(
        self,
        *,
        steps: Steps,
        access_log: AccessLog,
        metrics: WorkerMetrics,
        ids: IdSource,
        now_us: Callable[[], int],
        health: Health,
    ) -> None:
        self._router = steps.router
        self._authenticator = steps.authenticator
        self._admission = steps.admission
        self._forwarder = steps.forwarder
        self._endings = steps.endings
        self._access_log = access_log
        self._metrics = metrics
        self._ids = ids
        self._now_us = now_us
        self._health = health
        self.in_flight = 0

    async def handle(self, client: ClientConnection, head: RequestHead) -> bool:
        """Answer one request; return whether the connection goes on."""
        if head.path in HEALTH_PATHS and head.method in {"GET", "HEAD"}:
            return self._endings.health(client, head, *self._health(head.path))
        if head.ends_here and head.method == "OPTIONS":
            return self._endings.options(client, head)
        exchange = self._begin(client, head)
        self.in_flight += 1
        try:
            with span("edge.request", exchange, server=True):
                return await self._serve(exchange)
        finally:
            self.in_flight -= 1
            client.when_left = None
            self._access_log.note(exchange)
            self._metrics.request(
                exchange.route.id if exchange.route is not None else "",
                exchange.status,
                exchange.outcome,
                exchange.duration_us / 1e6,
            )

    def refuse_early(self, client: ClientConnection, unacceptable: Unacceptable) -> None:
        """Answer something that was not even a request."""
        self._endings.refuse_early(client, refused_by_server(unacceptable), id_text(self._ids.uuid7_bytes()))

    def _begin(self, client: ClientConnection, head: RequestHead) -> Exchange:
        request_id = self._ids.uuid7_bytes()
        text = id_text(request_id)
        # A new trace takes its id from the request; it is not sampled.
        traceparent = head.traceparent or f"00-{request_id.hex()}-{text[19:23]}{text[24:]}-00"
        return Exchange(client, head, request_id, text, self._now_us(), traceparent)

    async def _serve(self, exchange: Exchange) -> bool:
        endings = self._endings
        try:
            await self._pass_through(exchange)
        except Refused as refused:
            await endings.refuse(exchange, refused)
        except Unacceptable as unacceptable:
            await endings.refuse(exchange, refused_by_server(unacceptable))
        except (UpstreamFailed, UpstreamTimedOut, UpstreamBusy) as lost:
            await endings.upstream_lost(exchange, lost)
        except (ClientLeft, Abandoned):
            await endings.client_left(exchange)
        except JournalBroken:
            endings.not_recorded(exchange)
        except Exception:
            # The loop's edge: a defect of ours costs one request, never the connection's other bytes.
            log.exception("request_failed", request_id=exchange.id_text)
            await endings.refuse(exchange, Refused(problems.INTERNAL, close=True))
        return exchange.keep_alive

    async def _pass_through(self, exchange: Exchange) -> None:
        head = exchange.head
        route = self._router.find(exchange)
        if exchange.is_preflight:
            self._endings.preflight(exchange)
            return
        if route.needs_key:
            await self._authenticator.authenticate(exchange, route)
        self._admission.check_room(exchange, route, self.in_flight)
        grant, wire = exchange.grant, exchange.wire
        if grant is not None and wire is not None:
            await self._admission.admit(exchange, route, grant, wire)
        if head.ends_here:
            await self._endings.trace(exchange)
            return
        pool = exchange.pool
        assert pool is not None  # noqa: S101 - set together with the route
        await self._forwarder.forward(exchange, route, pool)
