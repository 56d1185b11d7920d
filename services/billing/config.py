"""What the billing service is told by its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from mesh.config import ProcessSettings, versioned_keys


def _check_versioned_keys(value: SecretStr) -> SecretStr:
    versioned_keys(value.get_secret_value())
    return value


class BillingSettings(ProcessSettings):
    """Where billing listens, its databases and its data keys."""

    billing_listen: str = "127.0.0.1:50054"
    billing_metrics_listen: str = "127.0.0.1:9104"
    billing_dsn: SecretStr
    billing_system_dsn: SecretStr
    billing_read_dsn: SecretStr | None = None
    data_keys: Annotated[SecretStr, AfterValidator(_check_versioned_keys)]
