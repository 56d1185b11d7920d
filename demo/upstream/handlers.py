"""The endpoints: each one shape of answer that a gateway has to carry.

It runs on aiohttp's low-level server (no router, no middlewares): a demo that is slower than the gateway in front of
it would show the demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import http
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from demo.upstream import completions
from demo.upstream.served import Served

REQUEST_ID_HEADER: Final = "X-Request-Id"
SLOW_MS_MAX: Final = 600_000
LARGE_BYTES_MAX: Final = 10 * 1024**3
LARGE_CHUNK: Final = b"t" * 65_536
EVENTS_MAX: Final = 100_000
ABORT_PROMISED_BYTES: Final = 100_000

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class WrongRequestError(ValueError):
    """The request asks for something this API does not do; answered with 400 and this message."""


class Upstream:
    """Answers requests and counts them.

    Args:
        served: Where they are counted.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._handlers: dict[str, Handler] = {
            "/": _index,
            "/echo": _echo,
            "/slow": _slow,
            "/fail": _fail,
            "/abort": _abort,
            "/large": _large,
            "/sink": _sink,
            "/sse": _sse,
            "/v1/chat/completions": _chat_completions,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        path = request.path
        if path == "/_served":
            return self._served_counts(request)
        if path == "/health/ready":
            return _json({"status": "ready"})
        request_id = request.headers.get(REQUEST_ID_HEADER, "")
        self._served.started(request_id, request.method, request.raw_path)
        try:
            response = await self._answer(request)
            # aiohttp would do these two after the handler; here they come before the request counts as answered.
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            return web.Response()  # the connection is gone: aiohttp finds nobody to send it to, and logs nothing
        self._served.answered(request_id, response.status)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handler(request.path)(request)
        except WrongRequestError as error:
            return _json({"error": str(error)}, 400)

    def _handler(self, path: str) -> Handler:
        if path.startswith("/status/"):
            return _status
        return self._handlers.get(path, _not_found)

    def _served_counts(self, request: web.BaseRequest) -> web.Response:
        if request.method == "DELETE":
            self._served.reset()
            return web.Response(status=204)
        return _json(self._served.as_json())


async def _index(_request: web.BaseRequest) -> web.Response:
    return _json({"name": "demo upstream", "try": ["/echo", "/status/404", "/slow?ms=200", "/sse?events=3"]})


async def _not_found(_request: web.BaseRequest) -> web.Response:
    return _json({"error": "no such path"}, 404)


async def _echo(request: web.BaseRequest) -> web.Response:
    body = await request.read()
    return _json(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.decode(errors="replace"),
        }
    )


async def _status(request: web.BaseRequest) -> web.Response:
    code = request.path.removeprefix("/status/")
    if not code.isdecimal() or not 200 <= int(code) <= 599:
        raise WrongRequestError("status must be 200 to 599")
    status = int(code)
    if status in (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.RESET_CONTENT, http.HTTPStatus.NOT_MODIFIED):
        return web.Response(status=status)
    return _json({"status": status}, status)


async def _slow(request: web.BaseRequest) -> web.Response:
    ms = _number(request, "ms", default=1_000, at_most=SLOW_MS_MAX)
    await asyncio.sleep(ms / 1_000)
    return _json({"waited_ms": ms})


async def _fail(_request: web.BaseRequest) -> web.Response:
    return _json({"error": "failed as asked"}, 500)


async def _abort(request: web.BaseRequest) -> web.StreamResponse:
    """Promises a body and dies in the middle of it."""
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = ABORT_PROMISED_BYTES
    await response.prepare(request)
    await response.write(b"half of a prom")
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("died mid-body as asked")


async def _large(request: web.BaseRequest) -> web.StreamResponse:
    left = _number(request, "bytes", default=1_048_576, at_most=LARGE_BYTES_MAX)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = left
    await response.prepare(request)
    while left > 0:
        await response.write(LARGE_CHUNK[:left])
        left -= len(LARGE_CHUNK)
    return response


async def _sink(request: web.BaseRequest) -> web.Response:
    """Swallows a body of any size and says what it was."""
    digest, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        size += len(chunk)
    return _json({"bytes": size, "sha256": digest.hexdigest()})


async def _sse(request: web.BaseRequest) -> web.StreamResponse:
    events = _number(request, "events", default=5, at_most=EVENTS_MAX)
    interval_seconds = _number(request, "interval_ms", default=100, at_most=SLOW_MS_MAX) / 1_000
    response = await _event_stream(request)
    for number in range(1, events + 1):
        await response.write(f'id: {number}\ndata: {{"event": {number}}}\n\n'.encode())
        if number < events:
            await asyncio.sleep(interval_seconds)
    return response


async def _chat_completions(request: web.BaseRequest) -> web.StreamResponse:
    if request.method != "POST":
        return _json({"error": "use POST"}, 405)
    try:
        question = completions.parse(await request.read())
    except completions.WrongQuestionError as error:
        return _json({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)
    if not question.stream:
        return _json(completions.answer(question))
    response = await _event_stream(request)
    for chunk in completions.chunks(question):
        await response.write(chunk)
    return response


async def _event_stream(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    return response


def _number(request: web.BaseRequest, name: str, *, default: int, at_most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 12 or int(text) > at_most:
        raise WrongRequestError(f"{name} must be a number from 0 to {at_most}")
    return int(text)


def _json(value: Any, status: int = 200) -> web.Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    return web.Response(body=body, status=status, content_type="application/json")
