"""Starts the notification service: `python -m services.notification --role api,worker`."""

from __future__ import annotations

from tollway.notification.v1 import notification_service_pb2, notification_service_pb2_grpc

from mesh.clock import SystemClock
from mesh.config import load, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import Daily, Worker
from mesh.rpc.client import Clients
from mesh.rpc.server import Server
from mesh.secretbox import SecretBox
from mesh.service.listener import HealthListener
from mesh.service.process import ProcessContext, read_roles, run
from services.notification.config import NotificationSettings
from services.notification.convert import Requests
from services.notification.mailer import SmtpMailer, parse_smtp_url
from services.notification.rpc import NotificationHandler
from services.notification.service import CLEAN_UP, Delivery, Outbox
from services.notification.templating import Templates, load_templates

NAME = "notification"
ROLES = ("api", "worker")
CLEAN_UP_HOUR = 3
DESCRIPTOR = notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"]


def main() -> None:
    """Read the command line and the environment, then serve until told to stop."""
    roles = read_roles("services.notification", ROLES)
    settings = load(NotificationSettings)

    async def serve(context: ProcessContext) -> None:
        await _serve(context, settings, roles)

    run(NAME, settings, serve)


async def _serve(context: ProcessContext, settings: NotificationSettings, roles: frozenset[str]) -> None:
    read_dsn = settings.notification_read_dsn
    db = await Database.connect(
        tenant_dsn=settings.notification_dsn.get_secret_value(),
        system_dsn=settings.notification_system_dsn.get_secret_value(),
        read_dsn=read_dsn.get_secret_value() if read_dsn else None,
        name=NAME,
    )
    clients = Clients(settings, process=NAME)
    mailer = SmtpMailer(parse_smtp_url(settings.smtp_url.get_secret_value()))
    templates = load_templates()
    health = HealthListener(required={"postgres": db.ping}, optional={"smtp": mailer.check})
    await health.start(settings.notification_metrics_listen)
    server = await _serve_api(settings, db, clients, templates) if "api" in roles else None
    worker = None
    if "worker" in roles:
        worker = context.tasks.create_task(_worker(settings, db, mailer, templates).run(context.stopping))
    await context.stopping.wait()
    if server is not None:
        await server.stop()
    if worker is not None:
        await worker
    await health.stop()
    await clients.close()
    await db.close()


async def _serve_api(settings: NotificationSettings, db: Database, clients: Clients, templates: Templates) -> Server:
    clock, ids = SystemClock(), RandomIds()
    box = SecretBox(versioned_keys(settings.data_keys.get_secret_value()))
    handler = NotificationHandler(
        outbox=Outbox(clock=clock, ids=ids),
        requests=Requests(templates=templates),
        db=db,
        idempotency=Idempotency(box=box, clock=clock),
        ids=ids,
    )
    return await Server.start(
        name=NAME,
        listen=settings.notification_listen,
        services=[(DESCRIPTOR, notification_service_pb2_grpc.add_NotificationServiceServicer_to_server, handler)],
        verifier=clients.verifier(clock),
        clock=clock,
        ids=ids,
        checks={"postgres": db.ping},
    )


def _worker(settings: NotificationSettings, db: Database, mailer: SmtpMailer, templates: Templates) -> Worker:
    clock = SystemClock()
    delivery = Delivery(db=db, mailer=mailer, templates=templates, mail_from=settings.mail_from, clock=clock)
    return Worker(
        db=db,
        name=NAME,
        handlers=delivery.handlers(),
        given_up=delivery.given_up(),
        clock=clock,
        ids=RandomIds(),
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )


if __name__ == "__main__":
    main()
