"""The third step: is there room for this request, in the journal and in the customer's limits.

The limiter decides. Where it cannot be asked in time, the route's policy does: the local share of the limits, everybody
or nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract.windows import CALENDAR_KINDS
from contract.wire import DECISION_ID
from edge_proxy.keys.grant import Grant
from edge_proxy.keys.route_bytes import RouteBytes
from edge_proxy.limiter.decide_client import DecideClient
from edge_proxy.limiter.local_share import LocalShare
from edge_proxy.limiter.policy import CompiledPolicy, Policies
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.tracing import is_sampled, span
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.routing.routes import LimiterAway, Route
from edge_proxy.usage.journal.writer import JournalWriter


class Admission:
    """Lets requests in or refuses them.

    Args:
        limiter: Finds verdicts.
        share: Decides while the limiter cannot.
        policies: Tell what a verdict's windows are.
        journal: Must have room for the event of whatever is let in.
        metrics: What is counted.
        now_us: Wall time in microseconds.
    """

    def __init__(
        self,
        *,
        limiter: DecideClient,
        share: LocalShare,
        policies: Policies,
        journal: JournalWriter,
        metrics: WorkerMetrics,
        now_us: Callable[[], int],
    ) -> None:
        self._limiter = limiter
        self._share = share
        self._policies = policies
        self._journal = journal
        self._metrics = metrics
        self._now_us = now_us

    def check_room(self, exchange: Exchange, route: Route, in_flight: int) -> None:
        """Refuse a body that is too large, and everything while the journal is full.

        Args:
            exchange: The request.
            route: Its route.
            in_flight: How many requests may still need a place in the journal, this one included.

        Raises:
            Refused: There is no room.
        """
        length = exchange.head.content_length
        if length is not None and length > route.body_bytes_max:
            raise Refused(problems.BODY_TOO_LARGE, f"At most {route.body_bytes_max} bytes.")
        if not self._journal.has_room(in_flight):
            exchange.is_recordable = False
            raise Refused(problems.JOURNAL_FULL)

    async def admit(self, exchange: Exchange, route: Route, grant: Grant, wire: RouteBytes) -> None:
        """Take the request's cost from the limits of its organization.

        Raises:
            Refused: The limits do not allow it, or nobody knows whether they do.
        """
        verdict = await self._decide(exchange, route, grant, wire)
        exchange.verdict = verdict
        if verdict is not None and verdict.kind != ratelimit.VERDICT_KIND_ALLOWED:
            raise _refusal(verdict, exchange.policy)

    async def _decide(
        self, exchange: Exchange, route: Route, grant: Grant, wire: RouteBytes
    ) -> ratelimit.Verdict | None:
        """Return the limiter's verdict, the local share's, or None where the route lets everything pass."""
        decision = b"%b%b%b" % (DECISION_ID, exchange.id, wire.decision)
        asked_us = exchange.elapsed_us()
        with span("edge.decide", exchange):
            if is_sampled(exchange.traceparent):
                decision += ratelimit.Decision(traceparent=exchange.traceparent).SerializeToString()
            verdict = await self._limiter.decide(decision)
        self._metrics.decision_latency.observe((exchange.elapsed_us() - asked_us) / 1e6)
        exchange.policy = self._policies.get(grant.organization_id)
        if verdict is not None and verdict.kind != ratelimit.VERDICT_KIND_UNAVAILABLE:
            exchange.is_admitted_by_limiter = verdict.kind == ratelimit.VERDICT_KIND_ALLOWED
            self._share.note(wire.asking, exchange.policy, verdict)
            return verdict
        return self._decide_alone(route, wire)

    def _decide_alone(self, route: Route, wire: RouteBytes) -> ratelimit.Verdict | None:
        self._metrics.counters[f"limiter_away_{route.limiter_away.value}"] += 1
        match route.limiter_away:
            case LimiterAway.CLOSED:
                raise Refused(problems.LIMITER_UNAVAILABLE)
            case LimiterAway.OPEN:
                return None
            case LimiterAway.DEGRADE:
                return self._share.decide(wire.asking, self._now_us())


def _refusal(verdict: ratelimit.Verdict, policy: CompiledPolicy | None) -> Refused:
    if verdict.kind == ratelimit.VERDICT_KIND_NO_POLICY:
        return Refused(problems.LIMITS_UNKNOWN)
    windows = policy.windows if policy is not None else ()
    is_quota = verdict.denied_by < len(windows) and windows[verdict.denied_by].kind in CALENDAR_KINDS
    retry_after = f"Retry-After: {max(1, -(-verdict.retry_after_ms // 1000))}\r\n".encode("ascii")
    return Refused(problems.QUOTA_EXCEEDED if is_quota else problems.RATE_LIMITED, headers=retry_after)
