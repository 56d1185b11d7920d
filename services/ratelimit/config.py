"""What ratelimit is told by its environment."""

from __future__ import annotations

from pydantic import SecretStr

from mesh.config import ProcessSettings


class RateLimitSettings(ProcessSettings):
    """Settings of the ratelimit process."""

    ratelimit_listen: str = "127.0.0.1:50052"
    ratelimit_metrics_listen: str = "127.0.0.1:9102"
    ratelimit_dsn: SecretStr
    ratelimit_system_dsn: SecretStr
    redis_url: SecretStr
