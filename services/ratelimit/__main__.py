"""Runs ratelimit: `python -m services.ratelimit --role api`. The only wiring of the service."""

from __future__ import annotations

import asyncio
import contextlib

from tollway.ratelimit.v1 import ratelimit_service_pb2
from tollway.ratelimit.v1.ratelimit_service_pb2_grpc import add_RateLimitServiceServicer_to_server

from mesh.clock import SystemClock
from mesh.config import load
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.redis import RedisPipe
from mesh.rpc.client import Clients
from mesh.rpc.server import Server
from mesh.service.listener import HealthListener
from mesh.service.process import ProcessContext, read_roles, run
from services.ratelimit.config import RateLimitSettings
from services.ratelimit.counters import Counters, greeting
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.metering_usage import MeteringUsage
from services.ratelimit.policies import Policies
from services.ratelimit.rpc import RateLimitHandler
from services.ratelimit.seeding import Seeder
from services.ratelimit.service import DecisionService, PolicyService

NAME = "ratelimit"
# Streams stay open until they are cut; what is in flight on them is done long before.
STOP_GRACE_SECONDS = 1.0
ROLES = ("api", "consumer", "worker")


async def serve(context: ProcessContext, settings: RateLimitSettings) -> None:
    """Wire the service, run it until the process is asked to stop, and let go of everything."""
    clock, ids = SystemClock(), RandomIds()
    db = await Database.connect(
        tenant_dsn=settings.ratelimit_dsn.get_secret_value(),
        system_dsn=settings.ratelimit_system_dsn.get_secret_value(),
        name=NAME,
    )
    clients = Clients(settings, process=NAME, clock=clock)
    pipe = RedisPipe(
        settings.redis_url.get_secret_value(), timeout_seconds=settings.redis_timeout_ms / 1_000, greeting=greeting
    )
    policies, counters = Policies(db), Counters(pipe)
    leases = EdgeLeases(pipe=pipe, ids=ids)
    seeder = Seeder(
        usage=MeteringUsage(metering=clients.metering, clock=clock), run=counters.teach, tasks=context.tasks
    )
    handler = RateLimitHandler(
        decisions=DecisionService(policies=policies, counters=counters, seeder=seeder, clock=clock),
        policies=PolicyService(db=db, policies=policies, clock=clock),
        leases=leases,
    )
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(db.close)
        cleanup.push_async_callback(clients.close)
        cleanup.push_async_callback(seeder.stop)
        loops = [context.tasks.create_task(each.run()) for each in (pipe, policies, leases)]
        cleanup.push_async_callback(_cancel, loops)
        # Without policies every verdict would be NO_POLICY, so nothing is served before they are there.
        await policies.loaded.wait()
        listener = HealthListener(required={"redis": pipe.ping}, optional={"postgres": db.ping})
        await listener.start(settings.ratelimit_metrics_listen)
        cleanup.push_async_callback(listener.stop)
        server = await Server.start(
            name=NAME,
            listen=settings.ratelimit_listen,
            services=[
                (
                    ratelimit_service_pb2.DESCRIPTOR.services_by_name["RateLimitService"],
                    add_RateLimitServiceServicer_to_server,
                    handler,
                )
            ],
            verifier=clients.verifier(clock),
            clock=clock,
            ids=ids,
            checks={"redis": pipe.ping},
        )
        cleanup.push_async_callback(server.stop, STOP_GRACE_SECONDS)
        await context.stopping.wait()


async def _cancel(loops: list[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


def main() -> None:
    """Run ratelimit until SIGTERM."""
    # All of it is one role today; the option is there so that every service is started alike.
    read_roles("services.ratelimit", ROLES)
    settings = load(RateLimitSettings)
    run(NAME, settings, lambda context: serve(context, settings))


if __name__ == "__main__":
    main()
