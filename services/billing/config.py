"""What the billing service is told by its environment."""

from __future__ import annotations

from pydantic import SecretStr

from contract.services import BILLING
from mesh.config import HexKey, ServiceSettings, VersionedKeys


class BillingSettings(ServiceSettings):
    """Where billing listens, its databases and its data keys."""

    service = "billing"

    billing_listen: str = BILLING.address
    billing_metrics_listen: str = BILLING.metrics_address
    billing_dsn: SecretStr
    billing_system_dsn: SecretStr
    billing_read_dsn: SecretStr | None = None
    billing_data_keys: VersionedKeys
    page_token_key: HexKey
