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
from cli.stack.process import die_with_parent, last_line
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

    @property
    def url(self) -> str:
        """Its database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def stop(self) -> None:
        """Stops it and waits for its end; SIGTERM makes it write what is left."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_redis(
    *, folder: Path, port: int, log_path: Path, throwaway: bool = False, program: str | None = None
) -> RunningRedis:
    """Starts the server on `folder` and returns when it answers.

    Args:
        folder: Where the append-only file lives; created when missing.
        port: Loopback port.
        log_path: Receives the server's output.
        throwaway: Keeps nothing on disk; tests only.
        program: The server's program; found where it is not given.

    Raises:
        StackError: in one line, whatever the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [program or find_program(), "--port", str(port), "--bind", LOOPBACK, "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "no" if throwaway else "yes", "--appendfsync", "everysec", "--daemonize", "no"]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 no thread of ours runs yet
        )
    _wait_until_ready(process, port, log_path)
    return RunningRedis(process=process, port=port)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StackError(f"Redis ended with exit status {process.returncode} on port {port}: {last_line(log_path)}")
        if _answers(port, process.pid):
            return
        time.sleep(POLL_SECONDS)
    process.kill()
    process.wait()
    raise StackError(f"Redis was not ready within {START_SECONDS_MAX:.0f} s: {last_line(log_path)}")


def _answers(port: int, pid: int) -> bool:
    """Says whether the server there is this process and has loaded its file; somebody else's may have the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=PROBE_SECONDS_MAX) as connection:
            # A server that still loads its file answers PING with -LOADING.
            connection.sendall(b"PING\r\nINFO server\r\n")
            answer = b""
            while b"process_id:" not in answer.rpartition(b"\r\n")[0]:
                part = connection.recv(4_096)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer.startswith(b"+PONG") and f"process_id:{pid}\r\n".encode() in answer
