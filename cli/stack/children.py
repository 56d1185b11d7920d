"""Starts the stack's processes, waits until they are ready, notices when one dies, and stops them all.

A child leads its own process group, so that whatever it started is found as well, and asks the kernel to be stopped
when this process ends. Nothing here waits for a fixed time: readiness is asked for until a deadline.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

import psutil

from cli.stack import StackError
from cli.stack.parts import Part
from cli.stack.process import die_with_parent, last_line, open_log

# On a busy machine nine interpreters that start together take half a minute.
READY_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 15.0
PROBE_SECONDS_MAX: Final = 2.5  # a health check of a process may take two seconds
POLL_SECONDS: Final = 0.05
ANSWER_BYTES_MAX: Final = 1_000
WHOLE_SECONDS_MAX: Final = 5.0


class Child:
    """One started process.

    Args:
        part: What it is.
        process: Its process.
    """

    def __init__(self, part: Part, process: subprocess.Popen[bytes]) -> None:
        self.part = part
        self.process = process

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part.name

    def pids(self) -> list[int]:
        """Return its pid and those of its own children, the edge's workers."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        return [self.process.pid, *sorted(each.pid for each in below)]

    def death(self) -> str | None:
        """Return how it ended; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"{self.name} {how}: {last_line(self.part.log_path)} (log: {self.part.log_path})"

    def kill_group(self) -> None:
        """End at once whatever is left of its process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def start(part: Part) -> Child:
    """Start a part; its log of the run before is kept beside the new one."""
    if part.log_path.exists():
        part.log_path.replace(part.log_path.with_suffix(".log.1"))
    with open_log(part.log_path) as log:
        process = subprocess.Popen(
            part.command,
            env=dict(part.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM, part.niceness),  # noqa: PLW1509 only the main thread forks
        )
    return Child(part, process)


def wait_until_ready(children: Sequence[Child], seconds_max: float = READY_SECONDS_MAX) -> None:
    """Return once every child says that it is ready.

    Raises:
        StackError: naming the child that died or is not ready in time, and why.
    """
    deadline = time.monotonic() + seconds_max
    waiting = list(children)
    while True:
        raise_if_dead(children)
        reasons = {child: not_ready_reason(child.part.ready_url) for child in waiting}
        waiting = [child for child in waiting if reasons[child]]
        if not waiting:
            return
        if time.monotonic() > deadline:
            child = waiting[0]
            raise StackError(
                f"{child.name} is not ready after {seconds_max:.0f} s ({reasons[child]}); "
                f"it last said: {last_line(child.part.log_path)} (log: {child.part.log_path})"
            )
        time.sleep(POLL_SECONDS)


def wait_until_whole(edge: Child, seconds_max: float = WHOLE_SECONDS_MAX) -> str:
    """Wait until the edge misses none of the services that it is ready without, and return what it misses in the end.

    An edge is ready before its stream to the limiter is open; what is sent in that moment is decided locally.
    """
    deadline = time.monotonic() + seconds_max
    while True:
        _, body = _get(edge.part.ready_url)
        degraded = _degraded(body)
        if not degraded or time.monotonic() > deadline:
            return degraded
        time.sleep(POLL_SECONDS)


def _degraded(body: str) -> str:
    try:
        found = json.loads(body).get("degraded")
    except (ValueError, AttributeError):
        return body
    return ", ".join(found) if found else ""


def raise_if_dead(children: Iterable[Child]) -> None:
    """Raise for the first child that has ended.

    Raises:
        StackError: naming it, its exit status and the last line of its log.
    """
    for child in children:
        death = child.death()
        if death is not None:
            raise StackError(death)


def not_ready_reason(url: str) -> str:
    """Return why a part is not ready, in a few words; empty when it is."""
    target = urlsplit(url)
    try:
        if target.scheme == "tcp":
            with socket.create_connection((target.hostname, target.port), timeout=PROBE_SECONDS_MAX) as connection:
                return "" if connection.recv(1) else "it closes the connection"
        status, body = _get(url)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"
    return "" if status == http.client.OK else f"{url} answers {status}: {body}"


def degraded_reason(url: str) -> str:
    """Return what a part that is ready does without, in a few words; empty where it misses nothing or is not HTTP."""
    if urlsplit(url).scheme == "tcp":
        return ""
    try:
        return _degraded(_get(url)[1])
    except (OSError, http.client.HTTPException):
        return ""


def _get(url: str) -> tuple[int, str]:
    target = urlsplit(url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=PROBE_SECONDS_MAX)
    try:
        connection.request("GET", target.path)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
    finally:
        connection.close()


def stop(children: Sequence[Child]) -> None:
    """Stop children together and wait for their end; whoever takes too long is killed."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill_group()
            child.process.wait()
        child.kill_group()
