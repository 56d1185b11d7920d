"""The way to Redis for the hot path: redis-py's connections under a thin batcher with a bound on every wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mesh.redis.cluster import ClusterPipe
from mesh.redis.pipe import TIMEOUT_SECONDS, RedisPipe, SinglePipe
from mesh.redis.source import read_url, source_of
from mesh.redis.wire import Command, RedisUnavailable, Reply

__all__ = ["Command", "RedisPipe", "RedisUnavailable", "Reply", "redis_pipe"]


def redis_pipe(
    url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, greeting: Callable[[], Sequence[Command]] = tuple
) -> RedisPipe:
    """Return the way to the server, the Sentinels' master or the cluster that a URL names (`source.py`).

    Args:
        url: Where Redis is.
        timeout_seconds: How long any call may wait.
        greeting: Commands for every new connection, for example SCRIPT LOAD.

    Raises:
        ValueError: The URL is of no known form.
    """
    where = read_url(url)
    if where.kind == "cluster":
        return ClusterPipe(where, timeout_seconds=timeout_seconds, greeting=greeting)
    return SinglePipe(source_of(where), timeout_seconds=timeout_seconds, greeting=greeting)
