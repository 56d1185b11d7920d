"""Runs billing: `python -m services.billing --role api,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.billing.v1 import billing_service_pb2_grpc

from contract.services import BILLING
from mesh.config import hex_key, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.secretbox import SecretBox
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.billing.config import BillingSettings
from services.billing.consequences import CLEAN_UP, Consequences, UsageReader
from services.billing.rpc import BillingHandler
from services.billing.service import Billing

CLEAN_UP_HOUR = 3


def serve_api(context: ServiceContext[BillingSettings]) -> Role:
    """Wire the RPCs."""
    settings, db, clock = context.settings, context.db, context.clock
    read_usage = UsageReader(clients=context.clients).billable_requests
    handler = BillingHandler(
        billing=Billing(db=db, read_usage=read_usage, clock=clock, ids=context.ids),
        db=db,
        idempotency=Idempotency(
            box=SecretBox(versioned_keys(settings.billing_data_keys.get_secret_value())), clock=clock
        ),
        page_tokens=PageTokens(hex_key(settings.page_token_key.get_secret_value())),
    )
    return Role(handler=handler)


def work(context: ServiceContext[BillingSettings]) -> Role:
    """Wire the jobs."""
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers=Consequences(db=context.db, clients=context.clients, clock=context.clock).handlers(),
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )
    return Role(workers=[worker.run])


SPEC = ServiceSpec(
    name=BILLING.name,
    descriptor=BILLING.descriptor,
    register=billing_service_pb2_grpc.add_BillingServiceServicer_to_server,
    settings=BillingSettings,
    roles={"api": serve_api, "worker": work},
)

if __name__ == "__main__":
    run(SPEC)
