"""Answers of the edge itself: `application/problem+json` (RFC 9457) with the request id.

What is said about API keys stands in `contract.problems`, because `auth` has Envoy say the same.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from contract import problems as shared
from contract.problems import Problem
from edge_proxy.http1.server.refusal import RefusalStatus, Unacceptable

BAD_REQUEST: Final = shared.BAD_REQUEST
KEY_MISSING: Final = shared.KEY_MISSING
KEY_INVALID: Final = shared.KEY_INVALID
KEYS_UNKNOWN: Final = shared.KEYS_UNKNOWN
ORGANIZATION_SUSPENDED: Final = shared.ORGANIZATION_SUSPENDED
ADDRESS_NOT_ALLOWED: Final = shared.ADDRESS_NOT_ALLOWED
SCOPE_MISSING: Final = shared.SCOPE_MISSING
TOO_MANY_UNKNOWN_KEYS: Final = shared.TOO_MANY_UNKNOWN_KEYS
INTERNAL: Final = shared.INTERNAL
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
RATE_LIMITED: Final = Problem(name="rate-limited", status=429, title="Too many requests.")
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


def reason_phrase(status: int) -> bytes:
    """Return the phrase of a status; phrases mean nothing, but people read them."""
    return _PHRASES.get(status, b"")


_PHRASES: Final = {int(status): status.phrase.encode("ascii") for status in HTTPStatus}
