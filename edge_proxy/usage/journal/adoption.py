"""Finds journals whose workers are gone and takes them over, so that what they left is sent.

A living worker holds an exclusive `flock` on its journal's lock file; the kernel lets go of it however the worker ends.
Whoever gets the lock owns the journal, sends it from its acknowledged position to its end and removes it. Two workers
may look at the same moment; only one gets the lock, and the other may get it only after the folder is gone, which it
notices because the lock file is no longer the one at that path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal.format import LOCK_NAME
from edge_proxy.usage.journal.reader import JournalReader, read_acknowledged
from edge_proxy.usage.journal.writer import remove_folder

# A journal is hidden only between two system calls; one that is still hidden after this long never came to be.
UNBORN_SECONDS: Final = 60.0

log = structlog.get_logger()


class AdoptedJournal:
    """A journal that a dead worker left, and that this worker now owns."""

    def __init__(self, path: Path, journal_id: UUID, lock: int) -> None:
        self.path = path
        self.journal_id = journal_id
        self.reader = JournalReader(path, journal_id)
        self.acknowledged = self.reader.first_position(read_acknowledged(path))
        self._lock = lock

    def finish(self) -> None:
        """Remove it: everything in it has been committed."""
        self.reader.close()
        remove_folder(self.path)
        os.close(self._lock)

    def let_go(self) -> None:
        """Leave it for another worker, or for the next start."""
        self.reader.close()
        os.close(self._lock)


def adopt(root: Path) -> list[AdoptedJournal]:
    """Take over every journal that nobody holds."""
    adopted = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            journal_id = UUID(path.name)
        except ValueError:
            _remove_unborn(path)
            continue
        lock = _try_lock(path)
        if lock is not None:
            log.info("journal_adopted", journal=path.name)
            adopted.append(AdoptedJournal(path, journal_id, lock))
    return adopted


def _try_lock(path: Path) -> int | None:
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (path / LOCK_NAME).stat().st_ino == os.fstat(lock).st_ino:
            return lock
    os.close(lock)
    return None


def _remove_unborn(path: Path) -> None:
    """Remove the folder of a worker that died before its journal could be seen; nothing is in it."""
    with contextlib.suppress(OSError):
        if path.name.startswith(".") and time.time() - path.stat().st_mtime > UNBORN_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
