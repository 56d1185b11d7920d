from __future__ import annotations

import pytest

from edge_proxy.http1.client.connection import UpstreamBusy, UpstreamFailed
from edge_proxy.http1.server.refusal import ClientLeft
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.forward import Forwarder
from edge_proxy.pipeline.problems import Refused
from edge_proxy.process.metrics import WorkerMetrics
from tests.support.pipeline_fakes import (
    FakeBody,
    FakeClient,
    FakeConnection,
    FakeOrigin,
    FakePool,
    FakeRelay,
    FakeSweep,
    exchange,
    request_head,
    route,
)


class Forwarding:
    def __init__(self, *origins):
        self.pool, self.relay, self.sweep, self.metrics = FakePool(*origins), FakeRelay(), FakeSweep(), WorkerMetrics()
        self.step = Forwarder(sweep=self.sweep, relay=self.relay, metrics=self.metrics)

    async def forward(self, asked, options=""):
        await self.step.forward(asked, route(options), self.pool)


async def test_a_request_goes_over_a_kept_connection_which_comes_back():
    origin = FakeOrigin(kept=FakeConnection())
    forwarding, asked = Forwarding(origin), exchange(request_head("/a?b=c"))
    await forwarding.forward(asked)
    (connection,) = origin.released
    assert connection.sent.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: origin\r\n")
    assert forwarding.relay.answered == [connection]
    assert asked.origin == origin.url
    assert asked.client.when_left is None


async def test_the_deadlines_of_the_route_are_set_before_the_answer_is_awaited():
    origin = FakeOrigin(kept=FakeConnection())
    forwarding = Forwarding(origin)
    await forwarding.forward(exchange(), "timeouts: {first_byte_ms: 2000, total_ms: 9000}")
    assert origin.released[0].deadlines_at_head == (forwarding.sweep.now + 2, forwarding.sweep.now + 9)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_failed_connect_is_made_good_by_the_next_origin(method):
    away, here = FakeOrigin(error=UpstreamFailed("refused")), FakeOrigin()
    forwarding = Forwarding(away, here)
    await forwarding.forward(exchange(request_head(method=method)))
    assert forwarding.pool.rested == [away]
    assert forwarding.relay.answered == here.released
    assert forwarding.metrics.counters["upstream_retries"] == 1


async def test_three_origins_are_tried_and_the_last_reason_is_told():
    origins = [FakeOrigin(error=UpstreamFailed(str(number))) for number in range(5)]
    with pytest.raises(UpstreamFailed, match="2"):
        await Forwarding(*origins).forward(exchange())
    assert [origin.opened for origin in origins] == [1, 1, 1, 0, 0]


async def test_an_upstream_without_room_is_busy_and_nothing_rests():
    forwarding = Forwarding(FakeOrigin(error=UpstreamBusy()), FakeOrigin(error=UpstreamBusy()))
    with pytest.raises(UpstreamBusy):
        await forwarding.forward(exchange())
    assert forwarding.pool.rested == []


@pytest.mark.parametrize(
    ("method", "fields", "is_retried"),
    [("GET", "", True), ("DELETE", "", True), ("POST", "", False), ("PUT", "Content-Length: 3\r\n", False)],
)
async def test_a_stale_connection_is_replaced_once_where_the_request_may_be_sent_again(method, fields, is_retried):
    origin = FakeOrigin(kept=FakeConnection(error=UpstreamFailed("gone", is_stale=True)))
    client = FakeClient()
    client.body = FakeBody(b"pay") if fields else None
    forwarding, asked = Forwarding(origin), exchange(request_head(method=method, fields=fields), client)
    if is_retried:
        await forwarding.forward(asked)
    else:
        with pytest.raises(UpstreamFailed):
            await forwarding.forward(asked)
    assert origin.opened == int(is_retried)
    assert len(origin.released) == 1 + int(is_retried)


async def test_a_body_larger_than_the_route_takes_is_refused_and_the_connection_comes_back():
    origin = FakeOrigin(kept=FakeConnection())
    client = FakeClient()
    client.body = FakeBody(b"x" * 11)
    with pytest.raises(Refused) as caught:
        await Forwarding(origin).forward(
            exchange(request_head(method="POST", fields="Transfer-Encoding: chunked\r\n"), client), "body_bytes_max: 10"
        )
    assert caught.value.problem is problems.BODY_TOO_LARGE
    assert len(origin.released) == 1


async def test_nothing_is_sent_for_a_client_that_is_gone():
    origin = FakeOrigin(kept=FakeConnection())
    client = FakeClient()
    client.is_gone = True
    with pytest.raises(ClientLeft):
        await Forwarding(origin).forward(exchange(client=client))
    assert origin.released[0].sent == b""


async def test_an_upstream_that_answers_before_it_has_read_the_body_is_not_used_again():
    origin = FakeOrigin(kept=FakeConnection())
    client = FakeClient()
    client.body = FakeBody(b"", is_complete=False)
    client.never_reads = True
    await Forwarding(origin).forward(exchange(request_head(method="POST", fields="Content-Length: 3\r\n"), client))
    assert not origin.released[0].is_reusable
