"""A batch is one span below the first sampled decision in it and linked to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from services.ratelimit.decisions import Decided
from services.ratelimit.rpc.decide import TRACES_LINKED_MAX, DecideRpcs

CONTEXTS = [f"00-{number:032x}-{number:016x}-01" for number in range(1, TRACES_LINKED_MAX + 10)]
NOT_SAMPLED = f"00-{'f' * 32}-{'f' * 16}-00"


class Decisions:
    async def decide(self, decisions: Sequence[pb.Decision], give_backs: Sequence[pb.GiveBack]) -> Decided:
        return Decided(verdicts=[pb.Verdict()] * len(decisions), layouts=[])


class Leases:
    live_count = 1

    def acquire(self) -> str:
        return "lease"

    def release(self, lease: str) -> None:
        pass


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


async def decide(traceparents: Sequence[str]) -> None:
    async def requests() -> AsyncIterator[pb.DecideRequest]:
        yield pb.DecideRequest(batch_id=1, decisions=[pb.Decision(traceparent=each) for each in traceparents])

    handler = DecideRpcs(Decisions(), Leases())  # type: ignore[arg-type]
    assert [answer.batch_id async for answer in handler.Decide(requests(), None)] == [1]


async def test_sampled_decisions_are_linked_and_others_make_no_span(spans: InMemorySpanExporter) -> None:
    await decide(["", NOT_SAMPLED])
    assert spans.get_finished_spans() == ()
    await decide(["", NOT_SAMPLED, *CONTEXTS[:3]])
    (span,) = spans.get_finished_spans()
    assert span.name == "ratelimit.decide"
    assert span.context is not None
    assert span.context.trace_id == 1
    assert [link.context.trace_id for link in span.links] == [2, 3]


async def test_the_links_of_a_batch_are_bounded(spans: InMemorySpanExporter) -> None:
    await decide(CONTEXTS)
    (span,) = spans.get_finished_spans()
    assert len(span.links) == TRACES_LINKED_MAX - 1
