"""Runs metering: `python -m services.metering --role api,consumer,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.metering.v1 import metering_service_pb2_grpc

from contract.services import METERING
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.metering.config import MeteringSettings
from services.metering.consumer import UsageConsumer
from services.metering.ingest import Ingester
from services.metering.maintenance import Maintenance
from services.metering.own_keys import AuthKeys
from services.metering.rpc import MeteringHandler
from services.metering.service import WRITERS_COUNT, IngestQueue, UsageService

# Streams stay open until they are cut; what is in flight on them is done long before.
STOP_GRACE_SECONDS = 2.0


def serve_api(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the RPCs, and the writers that merge the batches of all streams."""
    queue = IngestQueue(Ingester(db=context.db, clock=context.clock).apply)
    usage = UsageService(db=context.db, own_keys=AuthKeys(context.clients.auth))
    return Role(handler=MeteringHandler(queue=queue, usage=usage), loops=[queue.run] * WRITERS_COUNT)


def consume(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the consumer of Kafka's topic, where there is a Kafka."""
    bootstrap = context.settings.kafka_bootstrap
    if not bootstrap:
        return Role()
    consumer = UsageConsumer(bootstrap=bootstrap, ingester=Ingester(db=context.db, clock=context.clock))
    return Role(loops=[consumer.run])


def work(context: ServiceContext[MeteringSettings]) -> Role:
    """Wire the care for partitions."""
    return Role(loops=[Maintenance(db=context.db, clock=context.clock).run])


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
