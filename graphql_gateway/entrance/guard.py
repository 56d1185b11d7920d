"""What happens around every HTTP request.

From the outside in: request id, log line and trace, a net that turns whatever falls into an answer without its words,
limits by address, who is calling, limits by caller.

The log line holds nothing that a client wrote: a path is logged as the template that it matched, or word by word where
the word stands in a template, with a star for every other segment, because invitations and resets put tokens there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry import trace

from graphql_gateway import errors, metrics
from graphql_gateway.callers.addresses import Network, client_address
from graphql_gateway.callers.admission import Admission
from graphql_gateway.callers.identity import ANONYMOUS, REFUSED, Identity, PrincipalReader, identify
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.entrance.http import (
    HEAD_BYTES_MAX,
    REQUEST_ID_HEADER,
    ROUTE,
    SCOPE,
    failure_of,
    fixed_headers,
    problem_response,
)
from graphql_gateway.failure import Failure
from graphql_gateway.traces import frames_of
from mesh.ids import IdSource
from mesh.observability import TRACEPARENT, span
from mesh.rpc.call import USER_AGENT_LENGTH_MAX

AUTHORIZATION_LENGTH_MAX: Final = 8_192
UNMATCHED: Final = "unmatched"
EXEMPT: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""Probes are neither limited nor asked who they are."""

SEGMENTS_MAX: Final = 12
"""Of a path that matches nothing, so many segments are logged."""

HEAD_FIELD_BYTES: Final = 4
"""The colon, the space and the line's end of a header field."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Wraps every handler.

    Attributes:
        admission: The gateway's own limits.
        principals: Reads credentials.
        ids: Where request ids come from.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
        words: What a path that matches nothing may contain and still be logged.
        hsts: Whether answers tell browsers to stay on HTTPS.
        timeout_seconds: By when every answer must be there.
        monotonic: Seconds that never go back.
    """

    admission: Admission
    principals: PrincipalReader
    ids: IdSource
    trusted_proxies: Sequence[Network]
    words: frozenset[str]
    hsts: bool
    timeout_seconds: float
    monotonic: Callable[[], float] = time.monotonic

    def install(self, app: web.Application) -> None:
        """Put the guard around an application."""
        app.middlewares.append(self._middleware())
        app.on_response_prepare.append(self._set_headers)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            started_seconds = self.monotonic()
            scope = request[SCOPE] = self._scope(request, started_seconds)
            request[ROUTE] = _canonical(request)
            with structlog.contextvars.bound_contextvars(request_id=scope.request_id):
                traceparent = request.headers.get(TRACEPARENT)
                with span(f"{request.method} {request[ROUTE]}", traceparent, kind=trace.SpanKind.SERVER):
                    response = await self._answer(request, handler, scope)
                self._finish(request, scope, response.status, self.monotonic() - started_seconds)
            return response

        return middleware

    def _scope(self, request: web.Request, started_seconds: float) -> RequestScope:
        authorization = request.headers.getall("Authorization", [])
        usable = len(authorization) == 1 and _is_plain(authorization[0])
        return RequestScope(
            request_id=str(self.ids.uuid7()),
            address=client_address(
                request.remote or "", request.headers.getall("X-Forwarded-For", []), self.trusted_proxies
            ),
            authorization=authorization[0] if usable else "",
            identity=ANONYMOUS if usable or not authorization else REFUSED,
            deadline_seconds=started_seconds + self.timeout_seconds,
            user_agent=_printable(request.headers.get("User-Agent", "")),
        )

    async def _answer(self, request: web.Request, handler: Handler, scope: RequestScope) -> web.StreamResponse:
        try:
            if request[ROUTE] not in EXEMPT:
                _check_head(request)
                await self._admit(scope)
            return await handler(request)
        except Failure as failure:
            return problem_response(failure, scope.request_id)
        except web.HTTPException as error:
            return problem_response(failure_of(error), scope.request_id)
        except Exception as error:  # noqa: BLE001 - the outermost edge: nothing unexpected may get past it
            _log_crash(error)
            return problem_response(Failure.internal(), scope.request_id)

    async def _admit(self, scope: RequestScope) -> None:
        self.admission.admit_address(scope.address)
        if scope.authorization:
            scope.identity = await identify(self.principals, scope.authorization)
        self.admission.admit_identity(scope.identity)

    def _finish(self, request: web.Request, scope: RequestScope, status: int, seconds: float) -> None:
        metrics.request_done(request[ROUTE], status, seconds)
        identity: Identity = scope.identity
        say = log.error if status >= 500 else log.info
        say(
            "request",
            method=request.method,
            path=self._loggable_path(request),
            status=status,
            duration_ms=round(seconds * 1_000, 3),
            organization_id=str(identity.organization_id) if identity.organization_id else None,
            user_id=identity.subject or None,
            operation=scope.operation or None,
            rpc_failures=scope.failures or None,
        )

    def _loggable_path(self, request: web.Request) -> str:
        if request[ROUTE] != UNMATCHED:
            return request[ROUTE]
        segments = request.raw_path.partition("?")[0].split("/", SEGMENTS_MAX + 1)[: SEGMENTS_MAX + 1]
        return "/".join(segment if segment in self.words else "*" for segment in segments)

    async def _set_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(fixed_headers(hsts=self.hsts))
        scope = request.get(SCOPE)
        if scope is not None:
            response.headers[REQUEST_ID_HEADER] = scope.request_id


def _log_crash(error: Exception) -> None:
    """Log where it happened. `log.exception` would add the exception's words, and those may quote a secret."""
    log.error("request_crashed", frames=frames_of(error))


def _check_head(request: web.Request) -> None:
    """Refuse a head that is too large as a whole; each of its lines was bounded by the parser."""
    fields = sum(len(name) + len(value) + HEAD_FIELD_BYTES for name, value in request.raw_headers)
    if len(request.raw_path) + fields > HEAD_BYTES_MAX:
        raise Failure.of(errors.HeadTooLarge())


def _printable(text: str) -> str:
    """Return what metadata of a call can carry of a header."""
    return "".join(letter for letter in text[:USER_AGENT_LENGTH_MAX] if " " <= letter <= "~").strip()


def _is_plain(value: str) -> bool:
    """Say whether a value can travel as gRPC metadata: printable ASCII, and not endless."""
    return value.isascii() and value.isprintable() and len(value) <= AUTHORIZATION_LENGTH_MAX


def _canonical(request: web.Request) -> str:
    resource = request.match_info.route.resource
    canonical = resource.canonical if resource is not None else UNMATCHED
    return UNMATCHED if "{" in canonical else canonical
