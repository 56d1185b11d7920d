"""Serves the REST routes: finds the one that a request means, calls its RPC, answers in the envelope.

`{"success": true, "message": "OK", "data": ...}` or `{"success": false, "error": {code, message, details}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import hdrs, web

from graphql_gateway import errors
from graphql_gateway.entrance.http import ROUTE, SCOPE, failure_response, problem_response, read_json_object
from graphql_gateway.failure import Failure
from graphql_gateway.rest.message import from_message, to_message
from graphql_gateway.rest.routes import Route
from graphql_gateway.rpc.calls import Calls
from mesh.rpc.errors import FieldViolation, InvalidFields

IDEMPOTENCY_KEY_HEADER: Final = "Idempotency-Key"
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 128


class RestView:
    """Answers every path that has a route, and says so where there is none.

    Args:
        routes: Most specific first.
        calls: The way to the services.
    """

    def __init__(self, routes: Sequence[Route], calls: Calls) -> None:
        self._routes = routes
        self._calls = calls

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        try:
            return await self._answer(request)
        except Failure as failure:
            # A limit is answered alike wherever it was reached.
            respond = problem_response if failure.http_status == 429 else failure_response
            return respond(failure, request[SCOPE].request_id)

    async def _answer(self, request: web.Request) -> web.Response:
        raw_path = request.raw_path.partition("?")[0]
        method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        route, path = self._find(method, raw_path)
        request[ROUTE] = route.template.text
        message = to_message(
            route,
            path=path,
            query=list(request.query.items()),
            body=await _body(request),
            idempotency_key=_idempotency_key(request),
        )
        answer = await self._calls.unary(route.rpc, message, request[SCOPE])
        data = from_message(answer, route.response_body)
        return web.json_response(
            {"success": True, "message": "OK", "data": data}, headers={"Cache-Control": "no-store"}
        )

    def _find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        allowed: set[str] = set()
        for route in self._routes:
            bound = _match(route, raw_path)
            if bound is None:
                continue
            if route.method == method:
                return route, bound
            allowed.add(route.method)
        if not allowed:
            raise Failure.of(errors.RouteNotFound())
        raise _method_not_allowed(allowed)


def _match(route: Route, raw_path: str) -> dict[str, str] | None:
    try:
        return route.template.match(raw_path)
    except ValueError:
        raise Failure.of(errors.RouteNotFound()) from None


def _method_not_allowed(allowed: set[str]) -> Failure:
    offered = allowed | ({hdrs.METH_HEAD} if hdrs.METH_GET in allowed else set())
    return Failure.of(errors.MethodNotAllowed(metadata={"allow": ", ".join(sorted(offered))}))


async def _body(request: web.Request) -> dict[str, Any] | None:
    if not request.can_read_body:
        return None
    body = await read_json_object(request)
    if not isinstance(body, dict):
        raise Failure.of(errors.BodyNotReadable())
    return body


def _idempotency_key(request: web.Request) -> str:
    values = request.headers.getall(IDEMPOTENCY_KEY_HEADER, [])
    if not values:
        return ""
    value = values[0]
    if len(values) > 1 or not 1 <= len(value) <= IDEMPOTENCY_KEY_LENGTH_MAX or not value.isprintable():
        wrong = FieldViolation(
            field=IDEMPOTENCY_KEY_HEADER,
            description=f"must be given once, 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters",
        )
        raise Failure.of(InvalidFields(violations=[wrong]))
    return value
