"""The small HTTP listener beside every process: metrics and health, never on a public port.

`/health/live` says that the process turns. `/health/ready` asks each check and names those that fail: a required one
makes the answer 503, any other makes it 200 with `degraded`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from mesh.config import host_port

CHECK_TIMEOUT_SECONDS: Final = 2.0

Check = Callable[[], Awaitable[object]]
log = structlog.get_logger()


class HealthListener:
    """Serves `/metrics`, `/health`, `/health/live` and `/health/ready`.

    Args:
        required: Checks by name without which the process is not ready.
        optional: Checks by name without which it is degraded.
        registry: Whose metrics to show.
    """

    def __init__(
        self,
        *,
        required: Mapping[str, Check],
        optional: Mapping[str, Check] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._required = dict(required)
        self._optional = dict(optional or {})
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self, listen: str) -> int:
        """Bind `host:port` and return the port (which was chosen where 0 was asked for)."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/health", self._ready),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, port = host_port(listen)
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def _ready(self, _request: web.Request) -> web.Response:
        failing, degraded = await asyncio.gather(failing_checks(self._required), failing_checks(self._optional))
        body = {"status": "unready" if failing else "ready", "failing": failing, "degraded": degraded}
        return web.json_response(body, status=503 if failing else 200)


async def failing_checks(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run checks side by side and return the reasons of those that fail, by name."""
    reasons = await asyncio.gather(*(_reason(check) for check in checks.values()))
    return {name: reason for name, reason in zip(checks, reasons, strict=True) if reason}


async def _reason(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_SECONDS} s"
    except Exception as error:  # noqa: BLE001 - whatever a check raises is its reason
        log.warning("health_check_failed", detail=repr(error))
        return type(error).__name__
    return ""
