"""Where the stack keeps what: one data folder, one name per thing in it, and one stack at a time on it.

A small file is replaced atomically, so that a reader sees the old one or the new one, never half of one. One stack per
folder is held by an flock, which ends with its process, whatever way that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.stack import StackError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths below the data folder."""

    data_dir: Path

    @property
    def secrets(self) -> Path:
        """Every secret of the installation, mode 0600."""
        return self.data_dir / "secrets.json"

    @property
    def stack_file(self) -> Path:
        """What runs; exists while it runs."""
        return self.data_dir / "stack.json"

    @property
    def lock(self) -> Path:
        """Held while a stack runs on this folder."""
        return self.data_dir / "lock"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL."""
        return self.data_dir / "postgres"

    @property
    def redis(self) -> Path:
        """The embedded Redis' append-only file."""
        return self.data_dir / "redis"

    @property
    def kafka(self) -> Path:
        """The broker's programs, configuration and log."""
        return self.data_dir / "kafka"

    @property
    def edge(self) -> Path:
        """The edge's journal and key snapshot."""
        return self.data_dir / "edge"

    @property
    def mail(self) -> Path:
        """Mails that the local SMTP server caught."""
        return self.data_dir / "mail"

    @property
    def logs(self) -> Path:
        """A log file per part."""
        return self.data_dir / "log"

    @property
    def served_log(self) -> Path:
        """A line per request that the demo upstream served."""
        return self.logs / "upstream-served.log"

    def log(self, part: str) -> Path:
        """Return the log file of a part."""
        return self.logs / f"{part}.log"

    def create(self) -> None:
        """Make the folders; the embedded PostgreSQL's user must be able to walk through."""
        for folder in (self.data_dir, self.logs, self.mail, self.edge):
            folder.mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Delete what the stack has written, and nothing else that lies in the folder. The lock stays."""
        for folder in (self.postgres, self.redis, self.kafka, self.edge, self.mail, self.logs):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.secrets, self.stack_file):
            file.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Replace a JSON file atomically; it never exists with wider permissions than `mode`."""
    write_text(path, json.dumps(value, indent=1) + "\n", mode=mode)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically; it never exists with wider permissions than `mode`."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)  # a left-over of this name may have had another one
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock and remove its file at the end.

    Raises:
        StackError: when another process holds it.
    """
    descriptor = _take(path)
    try:
        yield
    finally:
        # Removed while held: whoever opens it from now on makes a new file.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Says whether a running process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_lock(descriptor):
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StackError(
                f"a stack already runs on {path.parent} (process {holder}): stop it, or choose another --data-dir"
            )
        if _is_current(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder removed the file between our open and our lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
