"""Runs billing: `python -m services.billing --role api,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.billing.v1 import billing_service_pb2_grpc

from contract.services import BILLING
from mesh.audit import AuditTrail
from mesh.config import hex_key, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.secretbox import SecretBox
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.billing.clients import LimitsWriter, UsageReader
from services.billing.config import BillingSettings
from services.billing.jobs import CLEAN_UP, BillingJobs
from services.billing.rpc import BillingHandler
from services.billing.service import Billing

CLEAN_UP_HOUR = 3


def serve_api(context: ServiceContext[BillingSettings]) -> Role:
    """Wire the RPCs."""
    settings, db, clock = context.settings, context.db, context.clock
    box = SecretBox(versioned_keys(settings.billing_data_keys.get_secret_value()))
    billing = Billing(
        db=db,
        idempotency=Idempotency(box=box, clock=clock),
        read_usage=UsageReader(context.clients).billable_units,
        clock=clock,
        ids=context.ids,
    )
    page_tokens = PageTokens(hex_key(settings.page_token_key.get_secret_value()))
    handler = BillingHandler(billing=billing, page_tokens=page_tokens)
    return Role(handler=handler)


def work(context: ServiceContext[BillingSettings]) -> Role:
    """Wire the jobs."""
    handlers = BillingJobs(
        db=context.db,
        limits=LimitsWriter(context.clients),
        trail=AuditTrail(context.clients.auth),
        clock=context.clock,
    )
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
    name=BILLING.name,
    descriptor=BILLING.descriptor,
    register=billing_service_pb2_grpc.add_BillingServiceServicer_to_server,
    settings=BillingSettings,
    roles={"api": serve_api, "worker": work},
)

if __name__ == "__main__":
    run(SPEC)
