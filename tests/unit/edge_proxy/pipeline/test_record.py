from __future__ import annotations

import time

import pytest
from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.pipeline import problems
from edge_proxy.pipeline.endings import Endings
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.record import Recorder
from edge_proxy.pipeline.wire import route_bytes
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.usage.journal.writer import JournalBroken
from tests.support.edge_fakes import ORGANIZATION
from tests.support.pipeline_fakes import (
    REQUEST_ID,
    START_US,
    FakeBody,
    FakeDecideClient,
    FakeJournal,
    exchange,
    held_grant,
    now_us,
    route,
)


class Recording:
    def __init__(self):
        self.journal, self.limiter, self.metrics = FakeJournal(), FakeDecideClient(), WorkerMetrics()
        self.recorder = Recorder(journal=self.journal, limiter=self.limiter, metrics=self.metrics)
        self.endings = Endings(recorder=self.recorder, metrics=self.metrics, now_us=now_us)

    @property
    def event(self):
        (payload,) = self.journal.payloads
        return events.UsageEvent.FromString(payload)


@pytest.fixture
def recording():
    return Recording()


@pytest.fixture
def served():
    """Return an exchange that the limiter admitted and the upstream answered."""
    made = exchange()
    made.route = route("cost_units: 4")
    made.grant = held_grant()
    made.wire = route_bytes(made.grant, made.route, "GET", 50)
    made.verdict = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_ALLOWED, calendar_time_us=7)
    made.is_admitted_by_limiter = True
    made.status, made.outcome, made.response_bytes = 200, events.OUTCOME_ANSWERED, 12
    made.client.body = FakeBody(b"abc")
    return made


async def test_the_event_says_who_what_and_how_much(recording, served):
    await recording.recorder.record(served)
    event = recording.event
    assert (event.id, event.organization_id) == (REQUEST_ID, ORGANIZATION.bytes)
    assert (event.route_id, event.path_template, event.cost_units) == ("only", "/*", 4)
    assert (event.status, event.request_bytes, event.response_bytes) == (200, 3, 12)
    assert event.start_time_us == START_US
    assert event.traceparent == ""
    assert recording.limiter.give_backs == []


async def test_no_step_of_the_wall_clock_reaches_a_duration(recording, served, monkeypatch):
    now_ns = served.begun_ns + 7_000_000
    monkeypatch.setattr(time, "time_ns", lambda: served.start_us * 1_000 - 3_600_000_000_000)
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    await recording.recorder.record(served)
    assert recording.event.duration_us == served.duration_us == 7_000


async def test_what_is_not_billed_gives_its_units_back(recording, served):
    served.status = 503
    await recording.recorder.record(served)
    (item,) = recording.limiter.give_backs
    assert (item.request_id, item.cost_units, item.calendar_time_us) == (REQUEST_ID, 4, 7)


async def test_a_request_without_a_grant_has_no_event(recording):
    await recording.recorder.record(exchange())
    assert recording.journal.payloads == []


async def test_a_broken_journal_is_the_callers_business_unless_the_caller_cannot_help_it(recording, served):
    recording.journal.is_broken = True
    with pytest.raises(JournalBroken):
        await recording.recorder.record(served)
    await recording.recorder.record_quietly(served)
    assert recording.metrics.counters["events_not_recorded"] == 1


async def test_a_refusal_is_recorded_before_it_is_sent(recording, served):
    sent_at_append = []
    recording.journal.before_append = lambda: sent_at_append.append(served.client.sent)
    served.outcome = events.OUTCOME_REFUSED
    await recording.endings.refuse(served, Refused(problems.RATE_LIMITED))
    assert sent_at_append == [b""]
    assert served.client.sent.startswith(b"HTTP/1.1 429")
    assert recording.event.status == 429


async def test_an_answer_that_has_begun_is_reset_and_never_followed_by_a_problem(recording, served):
    served.is_started = True
    await recording.endings.refuse(served, Refused(problems.INTERNAL))
    assert served.client.is_aborted
    assert served.client.sent == b""
    assert recording.event.outcome == events.OUTCOME_UPSTREAM_ABORTED


async def test_a_client_that_left_is_written_down_by_whether_the_upstream_had_answered(recording, served):
    await recording.endings.client_left(served)
    served.has_upstream_answer = True
    await recording.endings.client_left(served)
    before, during = (events.UsageEvent.FromString(payload) for payload in recording.journal.payloads)
    assert (before.outcome, before.status) == (events.OUTCOME_CLIENT_LEFT_BEFORE_ANSWER, 499)
    assert during.outcome == events.OUTCOME_CLIENT_LEFT_DURING_ANSWER
