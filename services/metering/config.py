"""What metering is told by its environment."""

from __future__ import annotations

from pydantic import SecretStr

from contract.services import METERING
from mesh.config import HexKey, ServiceSettings


class MeteringSettings(ServiceSettings):
    """Settings of the metering process."""

    service = "metering"

    metering_listen: str = METERING.address
    metering_metrics_listen: str = METERING.metrics_address
    metering_dsn: SecretStr
    metering_system_dsn: SecretStr
    metering_read_dsn: SecretStr | None = None
    kafka_bootstrap: str | None = None
    page_token_key: HexKey
