"""Notification on the wire: protobuf in, protobuf out, no rules.

The transaction of a mutation is opened here, because the idempotency key is reserved and the answer stored, as the
protobuf that the caller got, in that same transaction.
"""

from __future__ import annotations

from typing import Any

from tollway.notification.v1 import notification_service_pb2 as pb
from tollway.notification.v1 import notification_service_pb2_grpc

from mesh.database.idempotency import Idempotency, attempt
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.access import current_principal
from services.notification.convert import Requests
from services.notification.service import Outbox


class NotificationHandler(notification_service_pb2_grpc.NotificationServiceServicer):
    """Handles the RPCs of `NotificationService`.

    Args:
        outbox: Takes e-mails.
        requests: Checks requests.
        db: For the transaction that a mutation and its idempotency key share.
        idempotency: Replays.
        ids: Ids of e-mails.
    """

    def __init__(
        self, *, outbox: Outbox, requests: Requests, db: Database, idempotency: Idempotency, ids: IdSource
    ) -> None:
        self._outbox = outbox
        self._requests = requests
        self._db = db
        self._idempotency = idempotency
        self._ids = ids

    async def SendEmail(self, request: pb.SendEmailRequest, context: Any) -> pb.SendEmailResponse:
        """Take an e-mail for delivery."""
        email = self._requests.from_send_email(request, self._ids.uuid7())
        asked = attempt(request, organization_id=email.organization_id, principal=current_principal().subject)
        async with self._db.tenant(email.organization_id) as tx:

            async def take() -> pb.SendEmailResponse:
                await self._outbox.take(tx, email)
                return pb.SendEmailResponse(email_id=str(email.email_id))

            return await self._idempotency.once(tx, asked, pb.SendEmailResponse, take)
