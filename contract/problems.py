"""What a gateway answers by itself about API keys: `application/problem+json` (RFC 9457) with the request id.

Our edge answers so, and `auth` has Envoy answer so: whoever changes the gateway changes nothing for clients. `type` is
a relative reference below `/problems/`; clients compare it, people read `title` and `detail`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

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
TOO_MANY_UNKNOWN_KEYS: Final = Problem(
    name="too-many-unknown-keys",
    status=429,
    title="Too many unknown API keys came from this address.",
    headers=b"Retry-After: 1\r\n",
)
INTERNAL: Final = Problem(name="internal", status=500, title="Something went wrong here.")


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
