"""The last step: the event goes into the journal, and what is not billed gives its quota back.

Once `record` has returned, the answer's end may be told. A request without a valid key has no event; it is only
counted.
"""

from __future__ import annotations

from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract import outcomes
from contract.wire import EVENT_ID
from edge_proxy.keys.grant import Grant
from edge_proxy.limiter.decide_client import DecideClient
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.tracing import is_sampled
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.usage.journal.writer import JournalBroken, JournalWriter


class Recorder:
    """Writes down what happened.

    Args:
        journal: Where events go.
        limiter: Takes back the quota of what is not billed.
        metrics: What is counted.
    """

    def __init__(self, *, journal: JournalWriter, limiter: DecideClient, metrics: WorkerMetrics) -> None:
        self._journal = journal
        self._limiter = limiter
        self._metrics = metrics

    async def record(self, exchange: Exchange) -> None:
        """Append the event. Once this returns, the answer's end may be told.

        Raises:
            JournalBroken: The event could not be written.
        """
        exchange.duration_us = exchange.elapsed_us()
        grant, wire = exchange.grant, exchange.wire
        if grant is None or wire is None or not exchange.is_recordable:
            return
        body = exchange.client.body
        varying = events.UsageEvent(
            start_time_us=exchange.start_us,
            duration_us=exchange.duration_us,
            upstream_latency_us=exchange.upstream_latency_us,
            status=exchange.status,
            outcome=exchange.outcome,  # type: ignore[arg-type]  # plain int from the same enum
            request_bytes=body.size if body is not None else 0,
            response_bytes=exchange.response_bytes,
            traceparent=exchange.traceparent if is_sampled(exchange.traceparent) else "",
        ).SerializeToString()
        await self._journal.append(b"%b%b%b%b" % (EVENT_ID, exchange.id, varying, wire.event))
        if outcomes.gives_back(exchange.outcome, exchange.status, admitted=exchange.is_admitted_by_limiter):
            self._give_back(exchange, grant)

    async def record_quietly(self, exchange: Exchange) -> None:
        """Append the event of a request that is not billed, or whose client is gone; a broken journal loses it."""
        try:
            await self.record(exchange)
        except JournalBroken:
            self.count_lost()

    def count_lost(self) -> None:
        """Count an event that could not be written."""
        self._metrics.counters["events_not_recorded"] += 1

    def _give_back(self, exchange: Exchange, grant: Grant) -> None:
        route, verdict = exchange.route, exchange.verdict
        if route is None or verdict is None:
            return
        self._metrics.counters["give_backs"] += 1
        self._limiter.give_back(
            ratelimit.GiveBack(
                request_id=exchange.id,
                organization_id=grant.organization_id,
                api_key_id=grant.api_key_id,
                route_id=route.id,
                cost_units=route.cost_units,
                test_mode=grant.test_mode,
                calendar_time_us=verdict.calendar_time_us,
            )
        )
