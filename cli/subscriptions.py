"""Subscribes the demo tenants to their plans: `python -m cli.subscriptions`.

It asks billing over gRPC, because a subscription is more than a row: billing pushes its limits to the limiter. It is a
process of its own because the supervisor forks, and nobody may fork once gRPC's threads run.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import grpc.aio
from tollway.billing.v1 import billing_service_pb2

from cli.demo_data import TENANTS
from mesh.config import ProcessSettings, load
from mesh.rpc.client import Clients

PROCESS: Final = "cli"


async def subscribe(clients: Clients) -> None:
    """Subscribe every tenant to its plan; a replay changes nothing."""
    for tenant in TENANTS:
        await clients.billing.CreateSubscription(
            billing_service_pb2.CreateSubscriptionRequest(
                organization_id=str(tenant.organization_id),
                plan_id=tenant.plan_id or "",
                idempotency_key=f"demo-subscription-{tenant.slug}",
            )
        )


async def _main(settings: ProcessSettings) -> None:
    clients = Clients(settings, process=PROCESS)
    try:
        await subscribe(clients)
    finally:
        await clients.close()


def main() -> None:
    """Subscribe, or say in one line why not."""
    try:
        asyncio.run(_main(load(ProcessSettings)))
    except grpc.aio.AioRpcError as error:
        print(f"billing answers {error.code().name}: {error.details()}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
