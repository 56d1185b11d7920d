from __future__ import annotations

import asyncio
import json
import time

from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.limiter import decide_client
from tests.support.edge_fakes import ORGANIZATION, answer


async def test_every_answer_says_what_is_left(surroundings):
    edge = surroundings
    edge.backend.limiter.burst, edge.backend.limiter.month = 10, 1000
    await edge.start()
    await edge.healthy()
    asked = time.time()
    got = await edge.request("/x")
    answered = time.time()
    await edge.stop()
    assert got.headers["ratelimit-policy"] == '"burst";q=10;w=60, "month";q=1000'
    assert got.headers["ratelimit"] == '"burst";r=9;t=1, "month";r=999;t=864000'
    assert (got.headers["x-ratelimit-limit"], got.headers["x-ratelimit-remaining"]) == ("10", "9")
    assert int(asked) <= int(got.headers["x-ratelimit-reset"]) <= answered + 3


async def test_requests_over_the_limit_are_429_never_forwarded_and_recorded(edge):
    edge.backend.limiter.burst = 5
    answers = await asyncio.gather(*(edge.request("/x") for _ in range(20)))
    refused = [got for got in answers if got.status == 429]
    assert (len(refused), len(edge.upstream.heads)) == (15, 5)
    document = json.loads(refused[0].body)
    assert document["type"] == "/problems/rate-limited"
    assert refused[0].headers["retry-after"] == "2"
    assert refused[0].headers["x-ratelimit-remaining"] == "0"
    stored = await edge.events(20)
    assert sum(event.outcome == events.OUTCOME_REFUSED and event.status == 429 for event in stored) == 15


async def test_used_up_quota_has_its_own_problem(edge):
    edge.backend.limiter.month = 0
    got = await edge.request("/x")
    assert (got.status, json.loads(got.body)["type"]) == (429, "/problems/quota-exceeded")


async def test_decisions_of_one_turn_share_a_message(edge):
    await asyncio.gather(*(edge.request("/x") for _ in range(50)))
    assert sum(edge.backend.limiter.batches) == 50
    assert max(edge.backend.limiter.batches) > 1


async def test_organization_without_policy_is_503_limits_unknown(edge):
    edge.backend.limiter.no_policy = True
    got = await edge.request("/x")
    assert (got.status, json.loads(got.body)["type"], got.headers["retry-after"]) == (
        503,
        "/problems/limits-unknown",
        "1",
    )


async def test_units_go_back_where_the_outcome_is_not_billed(edge):
    edge.upstream.script = answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
    assert (await edge.request("/items/1")).status == 500
    await edge.until(lambda: edge.backend.limiter.give_backs)
    (returned,) = edge.backend.limiter.give_backs
    (decision,) = edge.backend.limiter.decisions
    assert returned.request_id == decision.request_id
    assert (returned.organization_id, returned.cost_units) == (ORGANIZATION.bytes, 3)
    assert returned.calendar_time_us > 0
    edge.upstream.script = answer(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    assert (await edge.request("/items/1")).status == 404
    await edge.events(2)
    assert len(edge.backend.limiter.give_backs) == 1


async def test_units_that_the_limiter_did_not_take_go_back_again(edge, monkeypatch):
    monkeypatch.setattr(decide_client, "GIVE_BACK_AGAIN_SECONDS", 0.0)
    edge.backend.limiter.takes_give_backs = False
    edge.upstream.script = answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
    assert (await edge.request("/items/1")).status == 500
    await edge.until(lambda: len(edge.backend.limiter.give_backs) >= 2)
    assert len({back.request_id for back in edge.backend.limiter.give_backs}) == 1
    edge.backend.limiter.takes_give_backs = True
    await edge.until(lambda: not edge.worker._limiter._given_back and not edge.worker._limiter._give_backs)


async def test_without_the_limiter_each_route_follows_its_own_rule(edge):
    edge.backend.limiter.burst, edge.backend.limiter.live_edges = 8, 2
    # The worker learns the policy and the number of live edges; two decisions are then in the limiter's count.
    await edge.backend.stop()
    await edge.until(lambda: not edge.worker._limiter.is_healthy)
    await edge.backend.start()
    await edge.until(lambda: edge.worker._share.live_edges == 2)
    await edge.backend.stop()
    await edge.until(lambda: not edge.worker._limiter.is_healthy)

    degraded = [(await edge.request("/x")).status for _ in range(8)]
    assert degraded == [200] * 4 + [429] * 4
    got = await edge.request("/closed")
    assert (got.status, json.loads(got.body)["type"]) == (503, "/problems/limiter-unavailable")
    assert (await edge.request("/pass")).status == 200
    assert edge.worker.metrics.counters["limiter_away_degrade"] == 8

    await edge.backend.start()
    await edge.until(lambda: edge.worker._limiter.is_healthy)
    assert (await edge.request("/x")).status == 200


async def test_late_verdicts_on_an_empty_bucket_admit_nothing_however_often_the_limiter_stalls(surroundings):
    edge = surroundings
    edge.changes["edge_decision_deadline_ms"] = 50
    edge.backend.limiter.burst = 3
    await edge.start()
    await edge.healthy()
    answers = [(await edge.request("/x")).status for _ in range(4)]
    for _ in range(3):
        edge.backend.limiter.hang = True
        answers += [(await edge.request("/x")).status for _ in range(5)]
        edge.backend.limiter.hang = False
        await edge.until(lambda: edge.worker._limiter.is_healthy)
        answers.append((await edge.request("/x")).status)
    await edge.stop()
    assert answers.count(200) == 3


async def test_hung_limiter_costs_no_more_than_the_deadline(surroundings):
    edge = surroundings
    edge.changes["edge_decision_deadline_ms"] = 50
    await edge.start()
    await edge.healthy()
    await edge.request("/x")
    edge.backend.limiter.hang = True
    taken = []
    for _ in range(5):
        started = time.monotonic()
        assert (await edge.request("/x")).status == 200
        taken.append(time.monotonic() - started)
    # Whoever shares the machine may slow some of them down.
    assert min(taken) < 0.5, taken
    assert not edge.worker._limiter.is_healthy
    edge.backend.limiter.hang = False
    await edge.until(lambda: edge.worker._limiter.is_healthy)
    await edge.stop()
