"""What ratelimit is told by its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from mesh.config import ServiceSettings


class RateLimitSettings(ServiceSettings):
    """Settings of the ratelimit process."""

    service = "ratelimit"

    ratelimit_listen: str = "127.0.0.1:50052"
    ratelimit_metrics_listen: str = "127.0.0.1:9102"
    ratelimit_dsn: SecretStr
    ratelimit_system_dsn: SecretStr
    redis_url: SecretStr
    # How long a batch may wait for Redis before its verdicts are UNAVAILABLE and the connection is given up.
    redis_timeout_ms: int = Field(default=50, ge=1, le=10_000)
