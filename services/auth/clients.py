"""What auth asks of other services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import grpc
import grpc.aio
from tollway.notification.v1 import notification_service_pb2 as pb

from mesh.jobs import PermanentFailure
from mesh.rpc.client import Clients

API_KEY_CREATED: Final = "api_key_created"


class NotificationClient:
    """Calls of notification.

    Args:
        clients: The other services.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def send_email(
        self, template: str, *, organization_id: UUID, recipient: str, facts: Mapping[str, str], job_id: UUID
    ) -> None:
        """Ask for an e-mail; the job's id makes it one e-mail.

        Raises:
            PermanentFailure: Notification will never take it.
            grpc.aio.AioRpcError: It does not take it now.
        """
        request = pb.SendEmailRequest(
            organization_id=str(organization_id),
            recipient=recipient,
            template=template,
            parameters=facts,
            idempotency_key=str(job_id),
        )
        try:
            await self._clients.notification.SendEmail(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise PermanentFailure(repr(error)) from error
            raise

    async def erase_recipient(self, address: str) -> None:
        """Have every e-mail to an address forgotten.

        Raises:
            grpc.aio.AioRpcError: It does not do so now.
        """
        await self._clients.notification.EraseRecipient(pb.EraseRecipientRequest(recipient=address))
