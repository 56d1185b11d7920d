"""Runs the gateway: `python -m graphql_gateway`."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from graphql_gateway.app import Gateway, build_gateway
from graphql_gateway.config import GatewaySettings
from graphql_gateway.entrance.connections import EntranceSite
from graphql_gateway.health import service_checks
from graphql_gateway.rest.routes import services
from mesh.clock import SystemClock
from mesh.config import host_port, load
from mesh.ids import RandomIds
from mesh.rpc.client import Clients
from mesh.rpc.principals import Principals
from mesh.service import process
from mesh.service.listener import HealthListener

NAME = "graphql_gateway"

log = structlog.get_logger()


def main() -> None:
    """Read the environment and serve until told to stop."""
    settings = load(GatewaySettings)

    async def serve(context: process.ProcessContext) -> None:
        clock = SystemClock()
        clients = Clients(settings, process=NAME, clock=clock)
        principals = Principals(clock=clock)
        watch = clients.watch_principals(principals)
        watching = context.tasks.create_task(watch.run())
        gateway = build_gateway(
            settings, services=services(), principals=clients.verifier(clock, principals), ids=RandomIds()
        )
        optional = {**service_checks(gateway.channels.all()), "principals": watch.check}
        listener = HealthListener(required={}, optional=optional)
        try:
            await listener.start(settings.gateway_metrics_listen)
            await _serve(gateway, settings, context.stopping)
        finally:
            watching.cancel()
            await listener.stop()
            await gateway.close()
            await clients.close()

    process.run(NAME, settings, serve)


async def _serve(gateway: Gateway, settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve HTTP; once stopping, take no new connections and give running requests their time."""
    runner = web.AppRunner(gateway.app, shutdown_timeout=settings.gateway_stop_seconds)
    await runner.setup()
    try:
        host, port = host_port(settings.gateway_listen)
        site = EntranceSite(
            runner,
            host=host,
            port=port,
            limits=settings.entrance_limits(),
            trusted_proxies=settings.gateway_trusted_proxies,
            ids=RandomIds(),
            hsts=settings.production,
        )
        await site.start()
        log.info("serving", process=NAME, port=runner.addresses[0][1])
        await stopping.wait()
        gateway.health.stopping = True
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
