"""E-mails on the wire."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.notification.v1 import notification_service_pb2 as pb

from mesh.database.idempotency import mutation
from mesh.ids import IdSource
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.notification.message import parse_mailbox
from services.notification.model import Email
from services.notification.service import Outbox
from services.notification.templating import Templates

RECIPIENT_LENGTH_MAX: Final = 254


class EmailRpcs:
    """Taking e-mails.

    Args:
        outbox: The rules.
        templates: What requests are checked against.
        ids: Ids of e-mails.
    """

    def __init__(self, outbox: Outbox, templates: Templates, ids: IdSource) -> None:
        self._outbox = outbox
        self._templates = templates
        self._ids = ids

    async def SendEmail(self, request: pb.SendEmailRequest, context: Any) -> pb.SendEmailResponse:
        """Take an e-mail for delivery."""
        email = from_send_email(request, self._templates, self._ids.uuid7())
        asked = mutation(
            request,
            organization_id=email.organization_id,
            principal=current_principal().subject,
            answer_type=pb.SendEmailResponse,
            to_answer=to_sent,
        )
        return await self._outbox.take(email, asked)


def from_send_email(request: pb.SendEmailRequest, templates: Templates, email_id: UUID) -> Email:
    """Check a request completely, against the templates there are, and return the e-mail that it asks for."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    recipient_is_right = len(request.recipient) <= RECIPIENT_LENGTH_MAX and _is_address(request.recipient)
    violations.check(recipient_is_right, "recipient", "must be an e-mail address")
    templates.check(violations, request.template, request.parameters)
    violations.raise_if_any()
    return Email(
        email_id=email_id,
        organization_id=organization_id,
        recipient=request.recipient,
        template=request.template,
        parameters=dict(request.parameters),
    )


def to_sent(email: Email) -> pb.SendEmailResponse:
    """Convert an e-mail that was taken."""
    return pb.SendEmailResponse(email_id=str(email.email_id))


def _is_address(text: str) -> bool:
    try:
        # Without a display name or a second address around it.
        return parse_mailbox(text).addr_spec == text
    except ValueError:
        return False
