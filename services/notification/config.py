"""What the notification service is told by its environment."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr

from contract.services import NOTIFICATION
from mesh.config import ServiceSettings, VersionedKeys
from services.notification.mailer import parse_smtp_url
from services.notification.message import parse_mailbox

EMAILS_PER_ORGANIZATION_AND_HOUR_MAX: Final = 300


def _check_smtp_url(value: SecretStr) -> SecretStr:
    parse_smtp_url(value.get_secret_value())
    return value


def _check_mailbox(value: str) -> str:
    parse_mailbox(value)
    return value


class NotificationSettings(ServiceSettings):
    """Where notification listens, its databases, its data keys and the mail server."""

    service = "notification"

    notification_listen: str = NOTIFICATION.address
    notification_metrics_listen: str = NOTIFICATION.metrics_address
    notification_dsn: SecretStr
    notification_system_dsn: SecretStr
    notification_data_keys: VersionedKeys
    smtp_url: Annotated[SecretStr, AfterValidator(_check_smtp_url)]
    mail_from: Annotated[str, AfterValidator(_check_mailbox)]
    notification_emails_per_hour_max: int = Field(default=EMAILS_PER_ORGANIZATION_AND_HOUR_MAX, ge=1)
