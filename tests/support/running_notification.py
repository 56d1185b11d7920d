"""A real notification service on a real database: RPCs, worker, SMTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import grpc.aio
from tollway.notification.v1 import notification_service_pb2_grpc

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import RetryPolicy, Worker
from mesh.secretbox import SecretBox
from services.notification.erasure import Erasure
from services.notification.jobs import Delivery
from services.notification.mailer import SmtpMailer, parse_smtp_url
from services.notification.rpc import NotificationHandler
from services.notification.service import Outbox
from services.notification.templating import load_templates
from tests.support.accounts import DATA_KEY
from tests.support.postgres import TestDatabase
from tests.support.serving import serving


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningNotification:
    stub: notification_service_pb2_grpc.NotificationServiceStub
    address: str
    db: Database
    delivery: Delivery


@contextlib.asynccontextmanager
async def running_notification(
    database: TestDatabase, smtp_port: int, *, attempts_max: int = 50, per_hour_max: int = 300
) -> AsyncIterator[RunningNotification]:
    clock, ids, templates = SystemClock(), RandomIds(), load_templates()
    box = SecretBox({1: DATA_KEY})
    db = await Database.connect(
        tenant_dsn=database.dsn("notification"),
        system_dsn=database.dsn("notification_system"),
        name="notification",
        pool_size_max=5,
    )
    outbox = Outbox(
        db=db,
        box=box,
        idempotency=Idempotency(box=box, clock=clock),
        clock=clock,
        ids=ids,
        per_hour_max=per_hour_max,
    )
    handler = NotificationHandler(outbox, templates, ids, Erasure(db))
    delivery = Delivery(
        db=db,
        box=box,
        mailer=SmtpMailer(parse_smtp_url(f"smtp://127.0.0.1:{smtp_port}")),
        templates=templates,
        mail_from="Tollway <no-reply@tollway.example>",
        clock=clock,
    )
    worker = Worker(
        db=db,
        name="notification",
        handlers=delivery.handlers(),
        given_up=delivery.given_up(),
        clock=clock,
        ids=ids,
        retry=RetryPolicy(first_seconds=0.05, seconds_max=0.2, attempts_max=attempts_max),
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.run(stopping))
    register = notification_service_pb2_grpc.add_NotificationServiceServicer_to_server
    try:
        async with (
            serving(SERVICES["notification"].descriptor, register, handler) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            stub = notification_service_pb2_grpc.NotificationServiceStub(channel)
            yield RunningNotification(stub=stub, address=address, db=db, delivery=delivery)
    finally:
        stopping.set()
        await task
        await db.close()
