"""Answers of the edge itself: `application/problem+json` (RFC 9457) with the request id.

`type` is a relative reference below `/problems/`; clients compare it, people read `title` and `detail`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from edge_proxy.http1.server.refusal import RefusalStatus, Unacceptable

SECURITY_HEADERS: Final = (
    b"X-Content-Type-Options: nosniff\r\n"
    b"X-Frame-Options: DENY\r\n"
    b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"Cache-Control: no-store\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of refusal.

    Args:
        name: Last part of `type`.
        status: HTTP status.
        title: What is wrong, the same for every occurrence.
        headers: Further header lines, each with its line end.
    """

    name: str
    status: int
    title: str
    headers: bytes = b""


BAD_REQUEST: Final = Problem(name="bad-request", status=400, title="The request is malformed or ambiguous.")
HEAD_TOO_LARGE: Final = Problem(name="head-too-large", status=431, title="The request's head is too large.")
TARGET_TOO_LONG: Final = Problem(name="target-too-long", status=414, title="The request's target is too long.")
REQUEST_TIMEOUT: Final = Problem(name="request-timeout", status=408, title="The request did not arrive in time.")
NOT_IMPLEMENTED: Final = Problem(name="not-implemented", status=501, title="The request needs something unsupported.")
VERSION_NOT_SUPPORTED: Final = Problem(
    name="version-not-supported", status=505, title="Only HTTP/1.0 and HTTP/1.1 are spoken here."
)
EXPECTATION_FAILED: Final = Problem(name="expectation-failed", status=417, title="Only 100-continue can be expected.")
NO_ROUTE: Final = Problem(name="no-route", status=404, title="No route matches this request.")
METHOD_NOT_ALLOWED: Final = Problem(name="method-not-allowed", status=405, title="The route does not take this method.")
BODY_TOO_LARGE: Final = Problem(name="body-too-large", status=413, title="The request's body is too large.")
KEY_MISSING: Final = Problem(
    name="key-missing",
    status=401,
    title="An API key is needed.",
    headers=b'WWW-Authenticate: Bearer realm="tollway"\r\n',
)
KEY_INVALID: Final = Problem(
    name="key-invalid",
    status=401,
    title="The API key is not valid.",
    headers=b'WWW-Authenticate: Bearer realm="tollway", error="invalid_token"\r\n',
)
KEYS_UNKNOWN: Final = Problem(
    name="keys-unknown", status=503, title="The key cannot be checked right now.", headers=b"Retry-After: 1\r\n"
)
ORGANIZATION_SUSPENDED: Final = Problem(
    name="organization-suspended", status=403, title="The organization is suspended."
)
ADDRESS_NOT_ALLOWED: Final = Problem(
    name="address-not-allowed", status=403, title="The API key may not be used from this address."
)
SCOPE_MISSING: Final = Problem(
    name="scope-missing",
    status=403,
    title="The API key lacks a scope that this route needs.",
    headers=b'WWW-Authenticate: Bearer realm="tollway", error="insufficient_scope"\r\n',
)
RATE_LIMITED: Final = Problem(name="rate-limited", status=429, title="Too many requests.")
TOO_MANY_UNKNOWN_KEYS: Final = Problem(
    name="too-many-unknown-keys",
    status=429,
    title="Too many unknown API keys came from this address.",
    headers=b"Retry-After: 1\r\n",
)
QUOTA_EXCEEDED: Final = Problem(name="quota-exceeded", status=429, title="The quota is used up.")
LIMITS_UNKNOWN: Final = Problem(
    name="limits-unknown", status=503, title="The limits are not known yet.", headers=b"Retry-After: 1\r\n"
)
LIMITER_UNAVAILABLE: Final = Problem(
    name="limiter-unavailable",
    status=503,
    title="The limits cannot be checked right now.",
    headers=b"Retry-After: 1\r\n",
)
JOURNAL_FULL: Final = Problem(
    name="journal-full", status=503, title="Usage cannot be recorded right now.", headers=b"Retry-After: 5\r\n"
)
NO_WORKER: Final = Problem(
    name="no-worker", status=503, title="Nobody can serve requests right now.", headers=b"Retry-After: 1\r\n"
)
UPSTREAM_UNREACHABLE: Final = Problem(name="upstream-unreachable", status=502, title="The upstream cannot be reached.")
UPSTREAM_BUSY: Final = Problem(
    name="upstream-busy",
    status=503,
    title="The upstream has no room for another request.",
    headers=b"Retry-After: 1\r\n",
)
UPSTREAM_TIMEOUT: Final = Problem(name="upstream-timeout", status=504, title="The upstream did not answer in time.")
INTERNAL: Final = Problem(name="internal", status=500, title="Something went wrong here.")


class Refused(Exception):
    """The edge answers by itself.

    Args:
        problem: What kind of refusal.
        detail: What is wrong with this request; shown to the client.
        headers: Header lines of this occurrence.
        close: Whether the connection cannot be used any further.
    """

    def __init__(self, problem: Problem, detail: str = "", *, headers: bytes = b"", close: bool = False) -> None:
        super().__init__(problem.name)
        self.problem = problem
        self.detail = detail
        self.headers = headers
        self.close = close


_BY_STATUS: Final[dict[RefusalStatus, Problem]] = {
    problem.status: problem  # type: ignore[misc]  # these are the statuses of RefusalStatus; a test compares them
    for problem in (
        BAD_REQUEST,
        REQUEST_TIMEOUT,
        TARGET_TOO_LONG,
        EXPECTATION_FAILED,
        HEAD_TOO_LARGE,
        NOT_IMPLEMENTED,
        VERSION_NOT_SUPPORTED,
    )
}


def refused_by_server(error: Unacceptable) -> Refused:
    """Return the refusal that says what the HTTP server found wrong."""
    return Refused(_BY_STATUS[error.status], error.detail, close=True)


def body_of(problem: Problem, detail: str, request_id: str) -> bytes:
    """Return the JSON document."""
    document = {
        "type": f"/problems/{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail or problem.title,
        "request_id": request_id,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def reason_phrase(status: int) -> bytes:
    """Return the phrase of a status; phrases mean nothing, but people read them."""
    return _PHRASES.get(status, b"")


_PHRASES: Final = {int(status): status.phrase.encode("ascii") for status in HTTPStatus}
