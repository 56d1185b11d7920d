"""Notification on the wire: protobuf in, protobuf out, no rules. One module per resource, with its converters."""

from __future__ import annotations

from tollway.notification.v1 import notification_service_pb2_grpc

from mesh.ids import IdSource
from services.notification.erasure import Erasure
from services.notification.rpc.emails import EmailRpcs
from services.notification.rpc.recipients import RecipientRpcs
from services.notification.service import Outbox
from services.notification.templating import Templates


class NotificationHandler(EmailRpcs, RecipientRpcs, notification_service_pb2_grpc.NotificationServiceServicer):
    """Handles the RPCs of `NotificationService`.

    Args:
        outbox: Takes e-mails.
        templates: What requests are checked against.
        ids: Ids of e-mails.
        erasure: Forgets recipients.
    """

    def __init__(self, outbox: Outbox, templates: Templates, ids: IdSource, erasure: Erasure) -> None:
        EmailRpcs.__init__(self, outbox, templates, ids)
        RecipientRpcs.__init__(self, erasure)
