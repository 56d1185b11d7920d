"""Runs metering: `python -m services.metering --role api,consumer,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.metering.v1 import metering_service_pb2_grpc

from contract.services import METERING
from mesh.audit import AuditTrail
from mesh.config import hex_key
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.metering.clients import AuthKeys
from services.metering.config import MeteringSettings
from services.metering.consumer import UsageConsumer
from services.metering.dead_letters import DeadLetters
from services.metering.ingest import Ingester
from services.metering.jobs import CLEAN_UP, Jobs
from services.metering.maintenance import Maintenance
from services.metering.rpc.handler import MeteringHandler
from services.metering.service import WRITERS_COUNT, IngestQueue, UsageService

# Streams stay open until they are cut; what is in flight on them is done long before.
STOP_GRACE_SECONDS = 2.0
CLEAN_UP_HOUR = 3


def serve_api(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the RPCs, and the writers that merge the batches of all streams."""
    ingester = Ingester(db=context.db, clock=context.clock)
    queue = IngestQueue(ingester.apply)
    dead_letters = DeadLetters(db=context.db, ingester=ingester, clock=context.clock, ids=context.ids)
    handler = MeteringHandler(
        queue=queue,
        usage=UsageService(db=context.db, own_keys=AuthKeys(context.clients.auth)),
        dead_letters=dead_letters,
        page_tokens=PageTokens(hex_key(context.settings.page_token_key.get_secret_value())),
    )
    return Role(handler=handler, loops=[queue.run] * WRITERS_COUNT, optional={"dead_letters": dead_letters.check})


def consume(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the consumer of Kafka's topic, where there is a Kafka."""
    bootstrap = context.settings.kafka_bootstrap
    if not bootstrap:
        return Role()
    consumer = UsageConsumer(bootstrap=bootstrap, ingester=Ingester(db=context.db, clock=context.clock))
    return Role(loops=[consumer.run], optional={"kafka_positions": consumer.check})


def work(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the care for partitions, and the jobs."""
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers=Jobs(db=context.db, trail=AuditTrail(context.clients.auth), clock=context.clock).handlers(),
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )
    return Role(loops=[Maintenance(db=context.db, clock=context.clock).run], workers=[worker.run])


SPEC = ServiceSpec(
    name=METERING.name,
    descriptor=METERING.descriptor,
    register=metering_service_pb2_grpc.add_MeteringServiceServicer_to_server,
    settings=MeteringSettings,
    roles={"api": serve_api, "consumer": consume, "worker": work},
    stop_grace_seconds=STOP_GRACE_SECONDS,
)

if __name__ == "__main__":
    run(SPEC)
