"""An OTLP trace collector that keeps what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a test wants to know of a span."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    linked_trace_ids: frozenset[str]


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """The receiving end."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [self._read(names["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def _read(self, service: str, span: Any) -> Span:
        return Span(
            service=service.removeprefix("tollway-"),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            linked_trace_ids=frozenset(link.trace_id.hex() for link in span.links),
        )

    def of(self, trace_id: str) -> list[Span]:
        """Returns the spans that belong to a trace, or whose work it shared."""
        return [s for s in self.spans if s.trace_id == trace_id or trace_id in s.linked_trace_ids]


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """Serves on a port of its own."""
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
