"""Spans of sampled requests; nothing at all for the others.

Unsampled requests get one shared, empty context manager: no span object, no context variable, no parsing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final

from opentelemetry.trace import SpanKind

from mesh import observability

_SAMPLED_DIGITS: Final = frozenset("13579bdf")


class _Unsampled:
    """Hands the `traceparent` on as it came."""

    __slots__ = ("_traceparent",)

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    def __enter__(self) -> str:
        return self._traceparent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def is_sampled(traceparent: str) -> bool:
    """Tell whether spans are wanted; the traceparent is known to be well-formed."""
    return traceparent[54] in _SAMPLED_DIGITS


def span(name: str, traceparent: str, *, server: bool = False) -> AbstractContextManager[str]:
    """Run a block inside a span, if the request is sampled; yields the `traceparent` for whoever is called inside."""
    if traceparent[54] in _SAMPLED_DIGITS:
        return _sampled(name, traceparent, SpanKind.SERVER if server else SpanKind.CLIENT)
    return _Unsampled(traceparent)


@contextlib.contextmanager
def _sampled(name: str, traceparent: str, kind: SpanKind) -> Iterator[str]:
    with observability.span(name, traceparent, kind=kind) as opened:
        yield observability.traceparent_of(opened, traceparent) or traceparent
