"""What a stack that was killed has left behind: its `stack.json`, and for a moment its processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

import psutil

from cli.stack import stack_file
from cli.stack.errors import StackError
from cli.stack.layout import Layout

POLL_SECONDS: Final = 0.1
LEFTOVER_SECONDS_MAX: Final = 30.0


def clear(layout: Layout, say: Callable[[str], None]) -> None:
    """Waits for the end of processes of a run that was killed: they are told by the kernel, and take a moment.

    The lock says that the run itself is over, so its `stack.json` describes nothing any more.
    """
    if not layout.stack_file.exists():
        return
    say("the last run was killed: its data and journal are kept")
    with contextlib.suppress(StackError):
        left = [pid for pids in stack_file.read(layout.stack_file).get("pids", {}).values() for pid in pids]
        deadline = time.monotonic() + LEFTOVER_SECONDS_MAX
        while any(_is_ours(pid, layout) for pid in left) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    layout.stack_file.unlink(missing_ok=True)


def _is_ours(pid: int, layout: Layout) -> bool:
    """Says whether a process was started before the file that names it: a later one has only inherited the number."""
    try:
        started_seconds = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return is_running(pid) and started_seconds <= layout.stack_file.stat().st_mtime


def is_running(pid: int) -> bool:
    """Says whether a process is there and has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
