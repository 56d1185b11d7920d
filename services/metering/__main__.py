"""Runs metering: `python -m services.metering --role api,consumer,worker`. The only wiring of the service."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from tollway.metering.v1 import metering_service_pb2
from tollway.metering.v1.metering_service_pb2_grpc import add_MeteringServiceServicer_to_server

from mesh.clock import SystemClock
from mesh.config import load
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.rpc.client import Clients
from mesh.rpc.server import Server
from mesh.service.listener import HealthListener
from mesh.service.process import ProcessContext, read_roles, run
from services.metering.config import MeteringSettings
from services.metering.consumer import UsageConsumer
from services.metering.ingest import Ingester
from services.metering.maintenance import Maintenance
from services.metering.own_keys import AuthKeys
from services.metering.rpc import MeteringHandler
from services.metering.service import WRITERS_COUNT, IngestQueue, UsageService

NAME = "metering"
# Streams stay open until they are cut; what is in flight on them is done long before.
STOP_GRACE_SECONDS = 2.0
ROLES = ("api", "consumer", "worker")

log = structlog.get_logger()


async def serve(context: ProcessContext, settings: MeteringSettings, roles: frozenset[str]) -> None:
    """Wire the roles, run them until the process is asked to stop, and let go of everything."""
    clock, ids = SystemClock(), RandomIds()
    read_dsn = settings.metering_read_dsn
    db = await Database.connect(
        tenant_dsn=settings.metering_dsn.get_secret_value(),
        system_dsn=settings.metering_system_dsn.get_secret_value(),
        read_dsn=read_dsn.get_secret_value() if read_dsn else None,
        name=NAME,
    )
    clients = Clients(settings, process=NAME, clock=clock)
    checks = {"postgres": db.ping}
    ingester = Ingester(db=db, clock=clock)
    loops: list[asyncio.Task[None]] = []
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(db.close)
        cleanup.push_async_callback(clients.close)
        listener = HealthListener(required=checks)
        await listener.start(settings.metering_metrics_listen)
        cleanup.push_async_callback(listener.stop)
        cleanup.push_async_callback(_cancel, loops)
        if "worker" in roles:
            loops.append(context.tasks.create_task(Maintenance(db=db, clock=clock).run()))
        if "consumer" in roles and settings.kafka_bootstrap:
            consumer = UsageConsumer(bootstrap=settings.kafka_bootstrap, ingester=ingester)
            loops.append(context.tasks.create_task(consumer.run()))
        if "api" in roles:
            queue = IngestQueue(ingester.apply)
            loops.extend(context.tasks.create_task(queue.run()) for _ in range(WRITERS_COUNT))
            server = await Server.start(
                name=NAME,
                listen=settings.metering_listen,
                services=[
                    (
                        metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"],
                        add_MeteringServiceServicer_to_server,
                        MeteringHandler(queue=queue, usage=UsageService(db=db, own_keys=AuthKeys(clients.auth))),
                    )
                ],
                verifier=clients.verifier(clock),
                clock=clock,
                ids=ids,
                checks=checks,
            )
            cleanup.push_async_callback(server.stop, STOP_GRACE_SECONDS)
        await context.stopping.wait()


async def _cancel(loops: list[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


def main() -> None:
    """Run metering until SIGTERM."""
    roles = read_roles("services.metering", ROLES)
    settings = load(MeteringSettings)
    run(NAME, settings, lambda context: serve(context, settings, roles))


if __name__ == "__main__":
    main()
