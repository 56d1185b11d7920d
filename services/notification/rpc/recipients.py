"""Recipients on the wire."""

from __future__ import annotations

from typing import Any

from tollway.notification.v1 import notification_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.notification.erasure import Erasure
from services.notification.rpc.emails import RECIPIENT_LENGTH_MAX


class RecipientRpcs:
    """Forgetting who e-mails went to.

    Args:
        erasure: The rules.
    """

    def __init__(self, erasure: Erasure) -> None:
        self._erasure = erasure

    async def EraseRecipient(self, request: pb.EraseRecipientRequest, context: Any) -> pb.EraseRecipientResponse:
        """Forget an address."""
        violations = Violations()
        right = "@" in request.recipient and len(request.recipient) <= RECIPIENT_LENGTH_MAX
        violations.check(right, "recipient", "must be an e-mail address")
        violations.raise_if_any()
        return pb.EraseRecipientResponse(erased_count=await self._erasure.erase_recipient(request.recipient))
