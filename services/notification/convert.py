"""Between protobuf and notification's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tollway.notification.v1 import notification_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.notification.message import parse_mailbox
from services.notification.model import Email
from services.notification.templating import Templates

RECIPIENT_LENGTH_MAX: Final = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Reads requests against the templates there are."""

    templates: Templates

    def from_send_email(self, request: pb.SendEmailRequest, email_id: UUID) -> Email:
        """Check a request completely and return the e-mail that it asks for."""
        violations = Violations()
        organization_id = violations.read_uuid("organization_id", request.organization_id)
        recipient_is_right = len(request.recipient) <= RECIPIENT_LENGTH_MAX and _is_address(request.recipient)
        violations.check(recipient_is_right, "recipient", "must be an e-mail address")
        self.templates.check(violations, request.template, request.parameters)
        violations.raise_if_any()
        return Email(
            email_id=email_id,
            organization_id=organization_id,
            recipient=request.recipient,
            template=request.template,
            parameters=dict(request.parameters),
        )


def _is_address(text: str) -> bool:
    try:
        # Without a display name or a second address around it.
        return parse_mailbox(text).addr_spec == text
    except ValueError:
        return False
