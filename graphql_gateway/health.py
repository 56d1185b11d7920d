"""Is the gateway well, and are the services?

It is ready whenever it runs: with a service away, what needs that service fails with a reason and everything else
works, so taking the gateway out of rotation would only lose more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import grpc.aio
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.service.listener import Check, failing_checks

CHECK_TIMEOUT_SECONDS: Final = 1.0
REMEMBERED_SECONDS: Final = 1.0


class ServiceNotServing(Exception):
    """A service says that it is not well."""


def service_checks(channels: Mapping[str, grpc.aio.Channel]) -> dict[str, Check]:
    """Return a health check (grpc.health.v1) per service, by its full name."""
    return {name: partial(_check, channel, name) for name, channel in channels.items()}


async def _check(channel: grpc.aio.Channel, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=name)
    try:
        answer = await stub.Check(request, timeout=CHECK_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise ServiceNotServing(f"{name}: {error.code().name}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ServiceNotServing(name)


class HealthView:
    """Answers probes on the public port. Services are asked at most once a second, however many probes come.

    Args:
        checks: By service.
        monotonic: Seconds that never go back.
    """

    def __init__(self, checks: Mapping[str, Check], *, monotonic: Callable[[], float]) -> None:
        self._checks = checks
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._asked_at_seconds = float("-inf")
        self._degraded: dict[str, str] = {}
        self.stopping = False

    async def live(self, _request: web.Request) -> web.Response:
        """Say that the process turns."""
        return web.json_response({"status": "live"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Say whether requests are welcome, and which services are away."""
        if self.stopping:
            return web.json_response({"status": "stopping", "degraded": {}}, status=503)
        degraded = await self._ask()
        return web.json_response({"status": "degraded" if degraded else "ready", "degraded": degraded})

    async def _ask(self) -> dict[str, str]:
        async with self._lock:
            if self._monotonic() - self._asked_at_seconds >= REMEMBERED_SECONDS:
                self._degraded = await failing_checks(self._checks)
                self._asked_at_seconds = self._monotonic()
            return self._degraded
