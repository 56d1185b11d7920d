"""One embedded Redis per test process, emptied for every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.stack.ports import free_ports
from cli.stack.servers.redis import RunningRedis, start_redis


@contextmanager
def running_redis(folder: Path) -> Iterator[RunningRedis]:
    """Starts a throw-away server and stops it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    server = start_redis(folder=folder, port=port, log_path=folder / "redis.log", throwaway=True)
    try:
        yield server
    finally:
        server.stop()
