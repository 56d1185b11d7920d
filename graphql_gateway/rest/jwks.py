"""The public keys of session tokens as a plain JSON Web Key Set (RFC 7517), for whoever verifies tokens outside.

`auth` publishes a new key longer before it signs than caches may keep this answer. The set is asked for at most once in
`FRESH_SECONDS`, however many ask; while `auth` is away the last one is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.auth.v1.auth_service_pb2 import DESCRIPTOR

from graphql_gateway.entrance.http import ROUTE, SCOPE, failure_response
from graphql_gateway.failure import Failure
from graphql_gateway.rpc.calls import Calls, typed_rpc

PATH: Final = "/.well-known/jwks.json"
CONTENT_TYPE: Final = "application/jwk-set+json"
FRESH_SECONDS: Final = 5.0
MAX_AGE_SECONDS: Final = 300
GET_JWKS: Final = typed_rpc(
    DESCRIPTOR.services_by_name["AuthService"], "GetJwks", pb.GetJwksRequest, pb.GetJwksResponse
)


class JwksView:
    """Serves the key set.

    Args:
        calls: The way to `auth`.
        monotonic: Seconds that never go back.
    """

    def __init__(self, calls: Calls, *, monotonic: Callable[[], float]) -> None:
        self._calls = calls
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._asked_at_seconds = float("-inf")
        self._jwks_json = ""

    async def get(self, request: web.Request) -> web.Response:
        """Answer one request."""
        request[ROUTE] = PATH
        scope = request[SCOPE]
        async with self._asking:
            if self._monotonic() - self._asked_at_seconds >= FRESH_SECONDS:
                try:
                    answer = await self._calls.unary(GET_JWKS, pb.GetJwksRequest(), scope)
                except Failure as failure:
                    if not self._jwks_json:
                        return failure_response(failure, scope.request_id)
                else:
                    self._jwks_json = answer.jwks_json
                self._asked_at_seconds = self._monotonic()
        return web.Response(
            text=self._jwks_json,
            content_type=CONTENT_TYPE,
            headers={"Cache-Control": f"public, max-age={MAX_AGE_SECONDS}"},
        )
