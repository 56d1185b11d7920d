"""One request on its way through the pipeline: what the steps have found out about it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.http1.server.protocol import ClientConnection
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.keys.grant import Grant
from edge_proxy.keys.route_bytes import RouteBytes
from edge_proxy.limiter.policy import CompiledPolicy
from edge_proxy.pipeline.generation import UpstreamPool
from edge_proxy.routing.routes import Route


@dataclass(slots=True, eq=False)
class Exchange:
    """What is known about one request so far.

    `start_us` is the wall clock's and only says when; how long something took is asked of `elapsed_us`.
    """

    client: ClientConnection
    head: RequestHead
    id: bytes
    id_text: str
    start_us: int
    traceparent: str
    route: Route | None = None
    pool: UpstreamPool | None = None
    origin: str = ""
    grant: Grant | None = None
    wire: RouteBytes | None = None
    policy: CompiledPolicy | None = None
    verdict: ratelimit.Verdict | None = None
    is_admitted_by_limiter: bool = False
    cors_lines: bytes = b""
    is_preflight: bool = False
    is_recordable: bool = True
    is_started: bool = False
    has_upstream_answer: bool = False
    keep_alive: bool = False
    status: int = 0
    outcome: int = events.OUTCOME_REFUSED
    upstream_latency_us: int = 0
    response_bytes: int = 0
    duration_us: int = 0
    begun_ns: int = field(default_factory=time.monotonic_ns)

    def elapsed_us(self) -> int:
        """Return the microseconds since the head was read, on the clock that nobody can set."""
        return (time.monotonic_ns() - self.begun_ns) // 1_000


def described(exchange: Exchange) -> dict[str, str]:
    """Return what a log line about an upstream names: never the key, never the query."""
    return {
        "request_id": exchange.id_text,
        "route": exchange.route.id if exchange.route is not None else "",
        "origin": exchange.origin,
    }


def id_text(request_id: bytes) -> str:
    """Return a request id as clients are told it."""
    text = request_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
