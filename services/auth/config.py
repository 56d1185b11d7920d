"""What the auth service is told by its environment."""

from __future__ import annotations

from pydantic import SecretStr

from contract.services import AUTH
from mesh.config import HexKey, ServiceSettings, VersionedKeys


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
