"""What the auth service is told by its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from contract.services import AUTH
from mesh.config import KEY_BYTES, ServiceSettings, VersionedKeys


def _check_seed(value: SecretStr) -> SecretStr:
    if len(bytes.fromhex(value.get_secret_value())) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in hex")
    return value


Seed = Annotated[SecretStr, AfterValidator(_check_seed)]


class AuthSettings(ServiceSettings):
    """Where auth listens, its databases and its secrets."""

    service = "auth"

    auth_listen: str = AUTH.address
    auth_metrics_listen: str = AUTH.metrics_address
    auth_dsn: SecretStr
    auth_system_dsn: SecretStr
    auth_read_dsn: SecretStr | None = None
    key_peppers: VersionedKeys
    data_keys: VersionedKeys
    signing_key: Seed
