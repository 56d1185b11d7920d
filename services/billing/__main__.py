"""Starts the billing service: `python -m services.billing --role api,worker`."""

from __future__ import annotations

from tollway.billing.v1 import billing_service_pb2, billing_service_pb2_grpc

from mesh.clock import SystemClock
from mesh.config import load, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.rpc.client import Clients
from mesh.rpc.server import Server
from mesh.secretbox import SecretBox
from mesh.service.listener import HealthListener
from mesh.service.process import ProcessContext, read_roles, run
from services.billing.config import BillingSettings
from services.billing.consequences import CLEAN_UP, Consequences, UsageReader
from services.billing.rpc import BillingHandler
from services.billing.service import Billing

NAME = "billing"
ROLES = ("api", "worker")
CLEAN_UP_HOUR = 3
DESCRIPTOR = billing_service_pb2.DESCRIPTOR.services_by_name["BillingService"]


def main() -> None:
    """Read the command line and the environment, then serve until told to stop."""
    roles = read_roles("services.billing", ROLES)
    settings = load(BillingSettings)

    async def serve(context: ProcessContext) -> None:
        await _serve(context, settings, roles)

    run(NAME, settings, serve)


async def _serve(context: ProcessContext, settings: BillingSettings, roles: frozenset[str]) -> None:
    read_dsn = settings.billing_read_dsn
    db = await Database.connect(
        tenant_dsn=settings.billing_dsn.get_secret_value(),
        system_dsn=settings.billing_system_dsn.get_secret_value(),
        read_dsn=read_dsn.get_secret_value() if read_dsn else None,
        name=NAME,
    )
    clients = Clients(settings, process=NAME)
    health = HealthListener(required={"postgres": db.ping})
    await health.start(settings.billing_metrics_listen)
    server = await _serve_api(settings, db, clients) if "api" in roles else None
    worker = context.tasks.create_task(_worker(db, clients).run(context.stopping)) if "worker" in roles else None
    await context.stopping.wait()
    if server is not None:
        await server.stop()
    if worker is not None:
        await worker
    await health.stop()
    await clients.close()
    await db.close()


async def _serve_api(settings: BillingSettings, db: Database, clients: Clients) -> Server:
    clock, ids = SystemClock(), RandomIds()
    billing = Billing(db=db, read_usage=UsageReader(clients=clients).billable_requests, clock=clock, ids=ids)
    box = SecretBox(versioned_keys(settings.data_keys.get_secret_value()))
    handler = BillingHandler(
        billing=billing,
        db=db,
        idempotency=Idempotency(box=box, clock=clock),
        page_tokens=PageTokens(settings.process_secret.get_secret_value().encode()),
    )
    return await Server.start(
        name=NAME,
        listen=settings.billing_listen,
        services=[(DESCRIPTOR, billing_service_pb2_grpc.add_BillingServiceServicer_to_server, handler)],
        verifier=clients.verifier(clock),
        clock=clock,
        ids=ids,
        checks={"postgres": db.ping},
    )


def _worker(db: Database, clients: Clients) -> Worker:
    clock = SystemClock()
    return Worker(
        db=db,
        name=NAME,
        handlers=Consequences(db=db, clients=clients, clock=clock).handlers(),
        clock=clock,
        ids=RandomIds(),
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )


if __name__ == "__main__":
    main()
