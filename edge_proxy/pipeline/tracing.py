"""Spans of sampled requests; nothing at all for the others.

Unsampled requests share one empty context manager: no span object, no context variable, no parsing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from opentelemetry.trace import SpanKind

from mesh import observability

_SAMPLED_DIGITS: Final = frozenset("13579bdf")
_NOTHING: Final = contextlib.nullcontext()


class Traced(Protocol):
    """Something that has a `traceparent`, which is known to be well-formed."""

    traceparent: str


def is_sampled(traceparent: str) -> bool:
    """Tell whether spans are wanted; from its last digit."""
    return traceparent[54] in _SAMPLED_DIGITS


def span(name: str, exchange: Traced, *, server: bool = False) -> AbstractContextManager[None]:
    """Run a block inside a span, if the request is sampled; `exchange.traceparent` then names that span."""
    if exchange.traceparent[54] in _SAMPLED_DIGITS:
        return _sampled(name, exchange, SpanKind.SERVER if server else SpanKind.CLIENT)
    return _NOTHING


@contextlib.contextmanager
def _sampled(name: str, exchange: Traced, kind: SpanKind) -> Iterator[None]:
    outer = exchange.traceparent
    with observability.span(name, outer, kind=kind) as opened:
        exchange.traceparent = observability.traceparent_of(opened, outer) or outer
        try:
            yield
        finally:
            exchange.traceparent = outer
