"""What ratelimit is told by its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from contract.services import RATELIMIT
from mesh.config import ServiceSettings


class RateLimitSettings(ServiceSettings):
    """Settings of the ratelimit process."""

    service = "ratelimit"

    ratelimit_listen: str = RATELIMIT.address
    ratelimit_metrics_listen: str = RATELIMIT.metrics_address
    ratelimit_dsn: SecretStr
    ratelimit_system_dsn: SecretStr
    redis_url: SecretStr
    # How long a batch may wait for Redis before its verdicts are UNAVAILABLE and the connection is given up.
    redis_timeout_ms: int = Field(default=50, ge=1, le=10_000)
