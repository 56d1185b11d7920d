"""What the auth service is told by its environment."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr

from contract.services import AUTH
from mesh.config import HexKey, ServiceSettings, VersionedKeys

KEYS_PER_ORGANIZATION_MAX: Final = 1_000
KEYS_PER_PERSON_AND_MINUTE_MAX: Final = 30


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
    auth_keys_per_organization_max: int = Field(default=KEYS_PER_ORGANIZATION_MAX, ge=1)
    auth_keys_per_person_minute_max: int = Field(default=KEYS_PER_PERSON_AND_MINUTE_MAX, ge=1)
