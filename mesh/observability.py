"""Logs, metrics and traces, set up the same way in every process.

Logs are JSON lines on stdout with time, level, service and whatever the request's context has bound (request id,
organization, RPC). Metrics use the Prometheus client's default registry; label values are bounded by whoever observes
(method names, reasons, never ids). Every line passes `mesh.redaction` on its way out, whoever wrote it. A line that
cannot be written (stdout is a file on a full disk) is lost and breaks nothing. Traces are OpenTelemetry: spans exist
only where an exporter is configured and the caller's `traceparent` (W3C) says sampled, so an unsampled request costs a
header comparison.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO, cast

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mesh.config import ProcessSettings
from mesh.redaction import redact_line

TRACEPARENT: Final = "traceparent"
_SAMPLED_SUFFIXES: Final = ("1", "3", "5", "7", "9", "b", "d", "f")
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def configure(name: str, settings: ProcessSettings) -> None:
    """Set up logging and, with an OTLP endpoint, tracing for this process.

    Args:
        name: The process, for example `metering`.
        settings: Level and form of logs, where traces go.
    """
    configure_logging(name, level=settings.log_level, form=settings.log_format)
    if settings.otlp_endpoint:
        # Imported where it is wanted: it is a tenth of a process's start.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        configure_tracing(name, OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=True))


def configure_logging(name: str, *, level: str, form: str) -> None:
    """Send structlog's and the standard library's records to stdout, one line each."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _adder("service", name),
        structlog.processors.format_exc_info,
    ]
    # The console's default traceback shows local variables, and those can be passwords.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console if form == "console" else structlog.processors.JSONRenderer()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer, redact_line],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(sys.stdout))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Lossy(sys.stdout))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, redact_line],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


class _Lossy:
    """A stream that loses what it cannot write: whoever logs is in the middle of something more important.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_tracing(name: str, exporter: SpanExporter) -> None:
    """Export spans of sampled requests. Sampling is decided where a trace starts, never here."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"tollway-{name}"}), sampler=ParentBased(root=ALWAYS_OFF)
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def flush_traces(timeout_seconds: float = 2.0) -> None:
    """Send what is still queued; before a process ends."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(int(timeout_seconds * 1000))


def is_sampled(traceparent: str | None) -> bool:
    """Tell from a `traceparent` (W3C Trace Context section 3.2.2) whether spans are wanted. Costs no parsing."""
    return traceparent is not None and len(traceparent) >= 55 and traceparent[54] in _SAMPLED_SUFFIXES


@contextlib.contextmanager
def span(
    name: str,
    traceparent: str | None,
    *,
    kind: trace.SpanKind = trace.SpanKind.INTERNAL,
    links: Sequence[str] = (),
    attributes: dict[str, str | int | float | bool] | None = None,
) -> Iterator[trace.Span]:
    """Run a block inside a span below `traceparent`; free where the request is not sampled.

    Args:
        name: What is being done.
        traceparent: The parent, as it came in.
        kind: Server, client or internal.
        links: `traceparent`s of further requests that share this work, for example the items of a batch.
        attributes: Bounded facts; no secrets.
    """
    if not is_sampled(traceparent):
        yield trace.INVALID_SPAN
        return
    context = _PROPAGATOR.extract({TRACEPARENT: traceparent or ""})
    linked = [trace.Link(c) for c in map(_span_context, links) if c.is_valid]
    with trace.get_tracer("tollway").start_as_current_span(
        name, context, kind=kind, links=linked, attributes=attributes
    ) as opened:
        yield opened


def traceparent_of(opened: trace.Span, otherwise: str | None) -> str | None:
    """Return the `traceparent` that a callee should be given: below `opened`, else the one that came in."""
    context = opened.get_span_context()
    if not context.is_valid:
        return otherwise
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_traceparent() -> str | None:
    """Return the `traceparent` of the span that is open in this task, if any."""
    return traceparent_of(trace.get_current_span(), None)


def _span_context(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(_PROPAGATOR.extract({TRACEPARENT: traceparent})).get_span_context()


def _adder(key: str, value: str) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault(key, value)
        return event

    return add
