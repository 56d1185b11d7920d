"""What the auth service is told by its environment."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from contract.services import AUTH
from mesh.config import HexKey, ServiceSettings, VersionedKeys

KEYS_PER_ORGANIZATION_MAX: Final = 1_000
KEYS_PER_PERSON_AND_MINUTE_MAX: Final = 30
SERVICE_ACCOUNTS_PER_ORGANIZATION_MAX: Final = 100
DASHBOARD_URL: Final = "http://127.0.0.1:8000"


def check_dashboard_url(value: str) -> str:
    """Return an address that pages can be put behind, without a slash at its end.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not value.isprintable() or " " in value:
        raise ValueError("must be http://… or https://…")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must have no query, fragment or user")
    return value.rstrip("/")


class AuthSettings(ServiceSettings):
    """Where auth listens, its databases and its secrets."""

    service = "auth"

    auth_listen: str = AUTH.address
    auth_metrics_listen: str = AUTH.metrics_address
    auth_dsn: SecretStr
    auth_system_dsn: SecretStr
    auth_read_dsn: SecretStr | None = None
    key_peppers: VersionedKeys
    auth_data_keys: VersionedKeys
    signing_key: HexKey
    page_token_key: HexKey
    dashboard_url: Annotated[str, AfterValidator(check_dashboard_url)] = DASHBOARD_URL
    auth_keys_per_organization_max: int = Field(default=KEYS_PER_ORGANIZATION_MAX, ge=1)
    auth_keys_per_person_minute_max: int = Field(default=KEYS_PER_PERSON_AND_MINUTE_MAX, ge=1)
    auth_service_accounts_per_organization_max: int = Field(default=SERVICE_ACCOUNTS_PER_ORGANIZATION_MAX, ge=1)
