"""Heads of answers, as bytes: those of the edge itself, and what of an upstream's fields goes on."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Final

from contract.problems import SECURITY_HEADERS, Problem, body_of
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.pipeline.problems import reason_phrase
from edge_proxy.routing.routes import COMMON_METHODS

VIA: Final = b"Via: 1.1 tollway\r\n"
CONNECTION_CLOSE: Final = b"Connection: close\r\n"

# Fields of an upstream's answer that end at this hop, or that the edge says itself.
_DROPPED: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
        b"x-request-id",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"ratelimit",
        b"ratelimit-policy",
    }
)
_CONNECTION_OPTIONS: Final = frozenset({b"close", b"keep-alive", b""})


class DateLine:
    """The `Date` field, made anew once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def get(self) -> bytes:
        """Return the line for now."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        return self._line


def forwarded_fields(fields: list[tuple[bytes, bytes]], *, date: bytes) -> list[bytes]:
    """Return the end-to-end fields of an upstream's answer as header lines.

    Args:
        fields: As the upstream sent them.
        date: The line to add where the upstream sent no `Date` (RFC 9110 section 6.6.1).
    """
    lines: list[bytes] = []
    nominated: set[bytes] | None = None
    has_date = False
    for name, value in fields:
        lower = name.lower()
        if lower not in _DROPPED:
            lines.append(b"%b: %b\r\n" % (name, value))
            if lower == b"date":
                has_date = True
        elif lower == b"connection" and value != b"keep-alive":
            tokens = {token.strip().lower() for token in value.split(b",")}
            nominated = tokens if nominated is None else nominated | tokens
    if nominated is not None and not nominated <= _CONNECTION_OPTIONS:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in nominated]
        has_date = has_date and b"date" not in nominated
    if not has_date:
        lines.append(date)
    return lines


def problem_answer(
    problem: Problem,
    detail: str,
    request_id: str,
    *,
    headers: bytes,
    date: bytes,
    keep_alive: bool,
    with_body: bool,
) -> tuple[bytes, int]:
    """Return an answer of the edge itself and the size of its body."""
    body = body_of(problem, detail, request_id)
    head = (
        b"HTTP/1.1 %d %b\r\n%bContent-Type: application/problem+json\r\nContent-Length: %d\r\nX-Request-Id: %b\r\n"
        % (
            problem.status,
            reason_phrase(problem.status),
            date,
            len(body),
            request_id.encode("ascii"),
        )
    )
    close = b"" if keep_alive else CONNECTION_CLOSE
    answer = b"".join((head, problem.headers, headers, SECURITY_HEADERS, close, b"\r\n", body if with_body else b""))
    return answer, len(body) if with_body else 0


def plain_answer(status: int, content_type: str, body: bytes, *, date: bytes, keep_alive: bool) -> bytes:
    """Return a small answer that is not about a request's way through, such as health."""
    head = b"HTTP/1.1 %d %b\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n" % (
        status,
        reason_phrase(status),
        date,
        content_type.encode("ascii"),
        len(body),
    )
    return b"".join((head, SECURITY_HEADERS, b"" if keep_alive else CONNECTION_CLOSE, b"\r\n", body))


def options_answer(*, date: bytes, keep_alive: bool) -> bytes:
    """Return the answer to a question about the server itself: which methods a route takes that names none."""
    allow = f"Allow: {', '.join(sorted(COMMON_METHODS))}\r\n".encode("ascii")
    close = b"" if keep_alive else CONNECTION_CLOSE
    return b"".join((b"HTTP/1.1 204 No Content\r\n", date, allow, SECURITY_HEADERS, close, b"\r\n"))


def traced(head: RequestHead) -> bytes:
    """Return a request as it arrived, without fields that hold secrets."""
    lines = [line for line in head.lines if not line.lower().startswith((b"cookie:", b"cookie2:"))]
    start = f"TRACE {head.path}".encode("ascii")
    return b"".join((start, head.query, b" HTTP/1.1\r\n", f"Host: {head.host}\r\n".encode("ascii"), *lines, b"\r\n"))
