"""A transaction that holds sampled events is one span below the first of them and linked to the others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mesh.clock import ManualClock
from services.metering import store
from services.metering.ingest import Ingester
from services.metering.model import IngestBatch, Source
from tests.support.metering import payload


class Database:
    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[None]:
        yield None


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


@pytest.fixture
def ingester(monkeypatch: pytest.MonkeyPatch) -> Ingester:
    async def nothing(*_values: Any, **_named: Any) -> list[int]:
        return []

    async def this_week(_tx: Any) -> date:
        return date(2026, 11, 16)

    for name in ("put_offsets", "create_week_partition", "stage", "store_staged"):
        monkeypatch.setattr(store, name, nothing)
    monkeypatch.setattr(store, "hold_arrival_week", this_week)
    return Ingester(db=Database(), clock=ManualClock(datetime.now(UTC)))  # type: ignore[arg-type]


async def test_sampled_events_are_linked_and_others_make_no_span(
    spans: InMemorySpanExporter, ingester: Ingester
) -> None:
    contexts = [f"00-{digit * 32}-{digit * 16}-01" for digit in "ab"]
    source = Source(name="j", partition=0)
    await ingester.apply([IngestBatch(source=source, next_offset=1, payloads=[payload(), payload()])])
    assert spans.get_finished_spans() == ()
    sampled = [payload(traceparent=context) for context in contexts]
    await ingester.apply([IngestBatch(source=source, next_offset=1, payloads=[payload(), *sampled])])
    (span,) = spans.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "a" * 32
    assert [f"{link.context.trace_id:032x}" for link in span.links] == ["b" * 32]
