"""What every process of the stack has in common: whose it is, when it ends, and what its log last says.

A child's life is tied to its parent's, so that even a supervisor that is SIGKILLed leaves nothing behind. Linux sends
the signal when the *thread* that forked the child ends: children are started from the main thread only. The setting is
cleared when a process changes its user, so it is made after `subprocess` has done that, in `preexec_fn`. Elsewhere
(macOS) this is a no-op and a killed supervisor leaves its children to be stopped by hand.

The embedded PostgreSQL refuses root, so root lends it an unprivileged user. That user must be able to walk to the
program and to its data. A checkout under `/root` (mode 0700) is the usual reason why it cannot; programs are then
copied next to the data, but the data's own path has to be open.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cli.stack import StackError

PR_SET_PDEATHSIG = 1
# What a child writes (mail, usage, keys, Redis' file) is for its owner alone.
PRIVATE_UMASK = 0o077
USER_NAMES = ("nobody",)
TAIL_BYTES_MAX = 8_192
LINE_CHARACTERS_MAX = 300

# Loaded here because a forked child must not load libraries.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(death_signal: signal.Signals, niceness: int = 0) -> Callable[[], None]:
    """Return a `preexec_fn` that asks the kernel for `death_signal` when the parent ends.

    Args:
        death_signal: What the child gets.
        niceness: How far it steps back behind others on a machine that they share, 0 to 19.

    The child also leaves the terminal's process group: Ctrl-C reaches the supervisor alone, which stops its children
    in their order.
    """
    parent_pid = os.getpid()

    def prepare_child() -> None:
        os.setpgid(0, 0)
        os.umask(PRIVATE_UMASK)
        os.nice(niceness)
        if _LIBC is None:
            return
        _LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)  # the parent ended between fork and prctl: nobody would ever stop this child

    return prepare_child


def open_log(path: Path, *, append: bool = False) -> IO[bytes]:
    """Open a log for a child to write to; its owner alone reads it, whoever could read the one before."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab" if append else "wb")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The user of a child process; `None` where it is simply the user of this process."""

    uid: int | None = None
    gid: int | None = None
    name: str = ""

    def popen_arguments(self) -> dict[str, Any]:
        """Return the arguments for `subprocess` that change the user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make the user own a file or folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def first_closed(self, path: Path) -> Path | None:
        """Return the first folder on the way to `path` that the user may not enter; None when the way is open."""
        if self.uid is None:
            return None
        resolved = path.resolve()
        for folder in [*reversed(resolved.parents), resolved]:
            if folder.is_dir() and not self._may_enter(folder.stat()):
                return folder
        return None

    def _may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def choose_user() -> RunAs:
    """Return the user that PostgreSQL is to run as.

    Raises:
        StackError: when this process is root and the machine has no unprivileged user to lend.
    """
    if os.geteuid() != 0:
        return RunAs()
    for name in USER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
    raise StackError(
        f"PostgreSQL refuses to run as root and this machine has no user {' or '.join(USER_NAMES)}: "
        "run as another user, or set TOLLWAY_POSTGRES_ADMIN_DSN to an external server"
    )


def stop_process(process: subprocess.Popen[bytes], seconds_max: float) -> None:
    """Ask a process to end and wait for that; kill it when the time is over."""
    process.terminate()
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(path: Path, line_count: int) -> list[str]:
    """Return at most the last `line_count` lines that are not blank; none when there is no file."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - TAIL_BYTES_MAX))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines[-line_count:]


def last_line(path: Path) -> str:
    """Return what the last line says, or that there is none."""
    lines = tail(path, 1)
    return _readable(lines[0])[:LINE_CHARACTERS_MAX] if lines else f"it wrote nothing to {path}"


def _readable(line: str) -> str:
    """Return a JSON log line's event and reason; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    reason = record.get("error") or record.get("detail") or _last_of(record.get("exception"))
    return f"{record.get('event', '')}: {reason}" if reason else str(record.get("event", line))


def _last_of(exception: object) -> str:
    return str(exception).strip().splitlines()[-1] if exception else ""
