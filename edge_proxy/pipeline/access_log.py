"""A line per request for some of the requests: which ones, the request's id decides.

The last bits of an id are random, so a share of all requests is a share of all ids, every process that knows the id
comes to the same answer, and no random number is drawn. A line never holds the key, and the path comes without its
query.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import structlog
from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.pipeline.exchange import Exchange

ID_RANGE: Final = 1 << 32
_ID_BYTES: Final = 4
_OUTCOMES: Final[dict[int, str]] = {
    value: name.removeprefix("OUTCOME_").lower() for name, value in events.Outcome.items()
}

log = structlog.get_logger()


class AccessLog:
    """Writes some requests down.

    Args:
        rate: The share of requests that get a line, 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        self._below = int(rate * ID_RANGE)

    def note(self, exchange: Exchange) -> None:
        """Write a line if the request is one of the share."""
        if self._below and int.from_bytes(exchange.id[-_ID_BYTES:]) < self._below:
            self._write(exchange)

    def _write(self, exchange: Exchange) -> None:
        head, grant = exchange.head, exchange.grant
        log.info(
            "request",
            request_id=exchange.id_text,
            organization_id=str(UUID(bytes=grant.organization_id)) if grant is not None else "",
            method=head.method,
            path=head.path,
            route=exchange.route.id if exchange.route is not None else "",
            origin=exchange.origin,
            status=exchange.status,
            outcome=_OUTCOMES.get(exchange.outcome, "unknown"),
            response_bytes=exchange.response_bytes,
            duration_ms=exchange.duration_us / 1_000,
        )
