"""Embedded Redis: the machine's own server, or the one that `redis_program.py` finds.

It keeps an append-only file, so that a second start finds its counters again.
"""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess
import time
from pathlib import Path

from cli.stack import StackError
from cli.stack.ports import LOOPBACK
from cli.stack.process import die_with_parent, last_line, open_log, stop_process
from cli.stack.servers.redis_program import find_program

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.02
PROBE_SECONDS_MAX = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningRedis:
    """A started server."""

    process: subprocess.Popen[bytes]
    port: int
    password: str = dataclasses.field(repr=False, default="")

    @property
    def url(self) -> str:
        """Its database 0."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}{LOOPBACK}:{self.port}/0"

    def stop(self) -> None:
        """Stop it and wait for its end; SIGTERM makes it write what is left."""
        stop_process(self.process, STOP_SECONDS_MAX)


def start_redis(
    *,
    folder: Path,
    port: int,
    log_path: Path,
    password: str = "",
    throwaway: bool = False,
    program: str | None = None,
) -> RunningRedis:
    """Start the server on `folder` and return when it answers.

    Args:
        folder: Where the append-only file lives; created when missing.
        port: Loopback port.
        log_path: Receives the server's output.
        password: What clients have to show; without one everybody on this machine is let in.
        throwaway: Keeps nothing on disk; tests only.
        program: The server's program; found where it is not given.

    Raises:
        StackError: in one line, whatever the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "redis.conf"
    # In a file, because everybody can read a process's arguments.
    with open_log(settings) as file:
        file.write(f"requirepass {password}\n".encode() if password else b"")
    for kept in folder.iterdir():
        kept.chmod(0o600 if kept.is_file() else 0o700)
    command = [
        program or find_program(),
        str(settings),
        "--port",
        str(port),
        "--bind",
        LOOPBACK,
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    command += ["--appendonly", "no" if throwaway else "yes", "--appendfsync", "everysec", "--daemonize", "no"]
    with open_log(log_path, append=True) as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 no thread of ours runs yet
        )
    started = RunningRedis(process=process, port=port, password=password)
    _wait_until_ready(started, log_path)
    return started


def _wait_until_ready(started: RunningRedis, log_path: Path) -> None:
    process, port = started.process, started.port
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StackError(f"Redis ended with exit status {process.returncode} on port {port}: {last_line(log_path)}")
        if _answers(started):
            return
        time.sleep(POLL_SECONDS)
    process.kill()
    process.wait()
    raise StackError(f"Redis was not ready within {START_SECONDS_MAX:.0f} s: {last_line(log_path)}")


def _answers(started: RunningRedis) -> bool:
    """Says whether the server there is this process and has loaded its file; somebody else's may have the port."""
    try:
        with socket.create_connection((LOOPBACK, started.port), timeout=PROBE_SECONDS_MAX) as connection:
            # A server that still loads its file answers PING with -LOADING.
            greeting = f"AUTH {started.password}\r\n" if started.password else ""
            connection.sendall(f"{greeting}PING\r\nINFO server\r\n".encode())
            answer = b""
            while b"process_id:" not in answer.rpartition(b"\r\n")[0]:
                part = connection.recv(4_096)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    is_there = answer.removeprefix(b"+OK\r\n").startswith(b"+PONG")
    return is_there and f"process_id:{started.process.pid}\r\n".encode() in answer
