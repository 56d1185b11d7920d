"""What GraphQL and REST share of HTTP: the request's scope, its body, its answers and the headers on all of them."""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from typing import Any, Final

from aiohttp import HttpVersion11, web

from graphql_gateway import errors
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.failure import Failure
from graphql_gateway.text import check_json
from mesh.rpc.errors import InternalError

SCOPE: Final = web.RequestKey("scope", RequestScope)
ROUTE: Final = web.RequestKey("route", str)
"""The template that a request matched, for metrics and logs."""

REQUEST_ID_HEADER: Final = "X-Request-Id"
BODY_TIMEOUT_SECONDS: Final = 10.0
INTEGER_DIGITS_MAX: Final = 40
HEAD_BYTES_MAX: Final = 32 * 1024
"""Request line and header fields together."""

PROBLEM_TYPE_PREFIX: Final = "/problems/"

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # The filter that this header used to switch on had holes of its own.
    "X-XSS-Protection": "0",
    # Nothing that the gateway answers is a page.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HSTS: Final = "max-age=31536000; includeSubDomains"
SERVER: Final = "tollway"
"""Said on every answer, because the default names the library and its version."""


async def read_json_object(request: web.Request) -> Any:
    """Return the JSON body: an object, or a list, which is for the caller to refuse.

    Raises:
        Failure: It is of another media type, too large, or not that; or it holds text that no service can take.
    """
    if request.content_type != "application/json":
        raise Failure.of(errors.MediaTypeNotSupported())
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Failure.of(errors.ContentEncodingNotSupported())
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise Failure.of(errors.BodyTooSlow()) from None
    except web.HTTPRequestEntityTooLarge:
        raise Failure.of(errors.BodyTooLarge()) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Failure.of(errors.BodyNotReadable()) from None
    try:
        parsed = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_int=_read_integer)
    except (ValueError, RecursionError):
        raise Failure.of(errors.BodyNotReadable()) from None
    if not isinstance(parsed, dict | list):
        raise Failure.of(errors.BodyNotReadable())
    if b"\\u" in body:
        check_json(parsed)
    return parsed


def _read_integer(digits: str) -> int | float:
    """Read an integer; one that no field can hold becomes infinite, so that its field is named instead of the body."""
    return int(digits) if len(digits) <= INTEGER_DIGITS_MAX else math.inf


def _refuse(constant: str) -> None:
    """JSON has no NaN and no infinities (RFC 8259 section 6)."""
    raise ValueError(constant)


def failure_response(failure: Failure, request_id: str) -> web.Response:
    """Return REST's answer to a request that failed."""
    return web.json_response(
        failure_body(failure, request_id), status=failure.http_status, headers=failure_headers(failure)
    )


def problem_response(failure: Failure, request_id: str) -> web.Response:
    """Return a problem (RFC 9457) that REST clients can read as their envelope too: problems may carry members."""
    body = {
        "type": PROBLEM_TYPE_PREFIX + failure.reason.lower().replace("_", "-"),
        "title": failure.message,
        "status": failure.http_status,
        "request_id": request_id,
        **failure_body(failure, request_id),
    }
    return web.json_response(
        body,
        status=failure.http_status,
        content_type="application/problem+json",
        headers=failure_headers(failure),
    )


async def meet_expectation(request: web.Request) -> None:
    """Send `100 Continue` where that is expected, and refuse anything else (RFC 9110, 10.1.1).

    The library's own handler repeats the field in its page, and stumbles over bytes that are no text.

    Raises:
        web.HTTPExpectationFailed: Something else is expected.
    """
    if request.version < HttpVersion11:
        return
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0


def failure_of(error: web.HTTPException) -> Failure:
    """Return the failure that stands for an error page of the library's."""
    if error.status == 404:
        return Failure.of(errors.RouteNotFound())
    if error.status == 417:
        return Failure.of(errors.ExpectationFailed())
    return Failure.of(errors.RequestNotReadable() if error.status < 500 else InternalError())


def problem_bytes(failure: Failure, request_id: str, *, hsts: bool) -> bytes:
    """Return a whole answer as it goes over the wire, for connections that no request was read from."""
    response = problem_response(failure, request_id)
    body = response.body if isinstance(response.body, bytes) else b""
    fields = {
        **response.headers,
        **fixed_headers(hsts=hsts),
        REQUEST_ID_HEADER: request_id,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    status = failure.http_status
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + body


def fixed_headers(*, hsts: bool) -> dict[str, str]:
    """Return the headers that are on every answer."""
    headers = {**SECURITY_HEADERS, "Server": SERVER}
    if hsts:
        headers["Strict-Transport-Security"] = HSTS
    return headers


def failure_body(failure: Failure, request_id: str) -> dict[str, Any]:
    """Return the envelope of a failure."""
    details = failure.details(request_id)
    return {"success": False, "error": {"code": failure.reason, "message": failure.message, "details": details}}


def failure_headers(failure: Failure) -> dict[str, str]:
    """Return what HTTP asks for beside some statuses."""
    headers = {"Cache-Control": "no-store"}
    if failure.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(failure.retry_after_seconds))
    if failure.http_status == 405:
        headers["Allow"] = failure.metadata.get("allow", "")
    if failure.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
