from __future__ import annotations

import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.limiter.policy import Policies
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.admit import Admission
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.wire import route_bytes
from edge_proxy.process.metrics import WorkerMetrics
from tests.support.edge_fakes import FakeLimiter
from tests.support.pipeline_fakes import (
    REQUEST_ID,
    FakeDecideClient,
    FakeJournal,
    FakeShare,
    exchange,
    held_grant,
    now_us,
    request_head,
    route,
)

ALLOWED = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_ALLOWED)
UNAVAILABLE = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_UNAVAILABLE)


class Admitting:
    def __init__(self, verdict):
        self.limiter = FakeDecideClient(verdict)
        self.share = FakeShare()
        self.journal = FakeJournal()
        policies = Policies()
        policies.put(FakeLimiter().policy())
        self.step = Admission(
            limiter=self.limiter,
            share=self.share,
            policies=policies,
            journal=self.journal,
            metrics=WorkerMetrics(),
            now_us=now_us,
        )
        self.exchange = exchange()

    async def admit(self, options=""):
        on, grant = route(options), held_grant()
        await self.step.admit(self.exchange, on, grant, route_bytes(grant, on, "GET", 50))

    async def refusal(self, options=""):
        with pytest.raises(Refused) as caught:
            await self.admit(options)
        return caught.value


async def test_what_the_limiter_allows_passes_and_the_local_share_learns_of_it():
    admitting = Admitting(ALLOWED)
    await admitting.admit("cost_units: 3")
    assert admitting.exchange.is_admitted_by_limiter
    assert admitting.share.noted == [ALLOWED]
    (decision,) = admitting.limiter.decisions
    assert (decision.request_id, decision.cost_units, decision.route_id) == (REQUEST_ID, 3, "only")


@pytest.mark.parametrize(("window", "problem"), [(0, problems.RATE_LIMITED), (1, problems.QUOTA_EXCEEDED)])
async def test_a_refusal_names_burst_or_quota_and_when_to_come_back(window, problem):
    denied = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_DENIED, denied_by=window, retry_after_ms=1_001)
    admitting = Admitting(denied)
    refused = await admitting.refusal()
    assert refused.problem is problem
    assert refused.headers == b"Retry-After: 2\r\n"
    assert not admitting.exchange.is_admitted_by_limiter


async def test_an_organization_without_a_policy_is_refused_for_now():
    no_policy = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_NO_POLICY)
    assert (await Admitting(no_policy).refusal()).problem is problems.LIMITS_UNKNOWN


@pytest.mark.parametrize("verdict", [None, UNAVAILABLE])
async def test_without_the_limiter_each_route_has_its_own_policy(verdict):
    closed = Admitting(verdict)
    assert (await closed.refusal("limiter_unavailable: closed")).problem is problems.LIMITER_UNAVAILABLE
    opened = Admitting(verdict)
    await opened.admit("limiter_unavailable: open")
    assert opened.exchange.verdict is None
    degraded = Admitting(verdict)
    await degraded.admit("cost_units: 2")
    (asking,) = degraded.share.asked
    assert asking.cost_units == 2
    assert not degraded.exchange.is_admitted_by_limiter


def test_a_full_journal_refuses_and_the_refusal_is_not_recorded():
    admitting = Admitting(ALLOWED)
    admitting.journal.is_full = True
    with pytest.raises(Refused) as caught:
        admitting.step.check_room(admitting.exchange, route(), 1)
    assert caught.value.problem is problems.JOURNAL_FULL
    assert not admitting.exchange.is_recordable


def test_a_body_that_says_it_is_too_large_is_refused_before_anything_is_taken():
    admitting = Admitting(ALLOWED)
    asked = exchange(request_head(method="POST", fields="Content-Length: 11\r\n"))
    with pytest.raises(Refused) as caught:
        admitting.step.check_room(asked, route("body_bytes_max: 10"), 1)
    assert caught.value.problem is problems.BODY_TOO_LARGE
    assert asked.is_recordable
