"""Runs ratelimit: `python -m services.ratelimit --role api,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.ratelimit.v1 import ratelimit_service_pb2_grpc

from contract.services import RATELIMIT
from mesh.audit import AuditTrail
from mesh.jobs import Daily, Worker
from mesh.redis import redis_pipe
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.ratelimit.clients import MeteringUsage
from services.ratelimit.config import RateLimitSettings
from services.ratelimit.counters import Counters, greeting
from services.ratelimit.decisions import DecisionService
from services.ratelimit.jobs import CLEAN_UP, RateLimitJobs
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.policies import Policies
from services.ratelimit.rpc.handler import RateLimitHandler
from services.ratelimit.seeding import Seeder
from services.ratelimit.service import PolicyService

# Streams stay open until they are cut; what is in flight on them is done long before.
STOP_GRACE_SECONDS = 1.0
CLEAN_UP_HOUR = 3


def serve_api(context: ServiceContext[RateLimitSettings]) -> Role:
    """Wire decisions and policies, and what keeps both fed."""
    settings, db, clock = context.settings, context.db, context.clock
    pipe = redis_pipe(
        settings.redis_url.get_secret_value(), timeout_seconds=settings.redis_timeout_ms / 1_000, greeting=greeting
    )
    policies, counters = Policies(db), Counters(pipe)
    leases = EdgeLeases(pipe=pipe, ids=context.ids)

    async def loaded() -> None:
        # Without policies every verdict would be NO_POLICY, so nothing is served before they are there.
        await policies.loaded.wait()

    usage = MeteringUsage(metering=context.clients.metering, clock=clock)
    seeder = Seeder(usage=usage, run=counters.teach, tasks=context.tasks)
    handler = RateLimitHandler(
        decisions=DecisionService(policies=policies, counters=counters, seeder=seeder, clock=clock),
        policies=PolicyService(db=db, policies=policies, clock=clock, ids=context.ids),
        leases=leases,
    )
    return Role(
        handler=handler,
        loops=[pipe.run, policies.run, leases.run],
        loaded=loaded,
        required={"redis": pipe.ping},
        close=[seeder.stop],
    )


def work(context: ServiceContext[RateLimitSettings]) -> Role:
    """Wire the jobs."""
    handlers = RateLimitJobs(db=context.db, trail=AuditTrail(context.clients.auth), clock=context.clock)
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers=handlers.handlers(),
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )
    return Role(workers=[worker.run])


SPEC = ServiceSpec(
    name=RATELIMIT.name,
    descriptor=RATELIMIT.descriptor,
    register=ratelimit_service_pb2_grpc.add_RateLimitServiceServicer_to_server,
    settings=RateLimitSettings,
    roles={"api": serve_api, "worker": work},
    # Policies are in memory, so decisions go on without the database.
    database_required=False,
    stop_grace_seconds=STOP_GRACE_SECONDS,
)

if __name__ == "__main__":
    run(SPEC)
