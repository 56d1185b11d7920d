"""Runs notification: `python -m services.notification --role api,worker`. The only wiring of the service."""

from __future__ import annotations

from tollway.notification.v1 import notification_service_pb2_grpc

from contract.services import NOTIFICATION
from mesh.config import versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.jobs import Daily, Worker
from mesh.secretbox import SecretBox
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.notification.config import NotificationSettings
from services.notification.erasure import Erasure
from services.notification.jobs import CLEAN_UP, RESEAL, Delivery
from services.notification.mailer import SmtpMailer, parse_smtp_url
from services.notification.rpc import NotificationHandler
from services.notification.service import Outbox
from services.notification.templating import load_templates

CLEAN_UP_HOUR = 3
RESEAL_HOUR = 4


def serve_api(context: ServiceContext[NotificationSettings]) -> Role:
    """Wire the RPCs."""
    box = _box(context.settings)
    outbox = Outbox(
        db=context.db,
        box=box,
        idempotency=Idempotency(box=box, clock=context.clock),
        clock=context.clock,
        ids=context.ids,
        per_hour_max=context.settings.notification_emails_per_hour_max,
    )
    handler = NotificationHandler(outbox, load_templates(), context.ids, Erasure(context.db))
    return Role(handler=handler, optional={"smtp": _mailer(context.settings).check})


def work(context: ServiceContext[NotificationSettings]) -> Role:
    """Wire the jobs."""
    mailer = _mailer(context.settings)
    delivery = Delivery(
        db=context.db,
        box=_box(context.settings),
        mailer=mailer,
        templates=load_templates(),
        mail_from=context.settings.mail_from,
        clock=context.clock,
    )
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers=delivery.handlers(),
        given_up=delivery.given_up(),
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR), Daily(kind=RESEAL, hour=RESEAL_HOUR)],
    )
    return Role(workers=[worker.run], optional={"smtp": mailer.check})


def _box(settings: NotificationSettings) -> SecretBox:
    return SecretBox(versioned_keys(settings.notification_data_keys.get_secret_value()))


def _mailer(settings: NotificationSettings) -> SmtpMailer:
    return SmtpMailer(parse_smtp_url(settings.smtp_url.get_secret_value()))


SPEC = ServiceSpec(
    name=NOTIFICATION.name,
    descriptor=NOTIFICATION.descriptor,
    register=notification_service_pb2_grpc.add_NotificationServiceServicer_to_server,
    settings=NotificationSettings,
    roles={"api": serve_api, "worker": work},
)

if __name__ == "__main__":
    run(SPEC)
