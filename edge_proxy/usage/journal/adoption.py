"""Finds journals whose workers are gone and takes them over, so that what they left is sent.

A living worker holds an exclusive `flock` on its journal's lock file; the kernel lets go of it however the worker ends.
Whoever gets the lock owns the journal, sends it from its acknowledged position to its end and removes it. Two workers
may look at the same moment; only one gets the lock, and the other may get it only after the folder is gone, which it
notices because the lock file is no longer the one at that path.

Only what was read is removed. A segment that holds anything unreadable goes into quarantine, and so does every file
that is no segment of the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal import quarantine
from edge_proxy.usage.journal.files import Files, OsFiles
from edge_proxy.usage.journal.format import (
    ACKNOWLEDGED_NAME,
    LOCK_NAME,
    PROBE_SUFFIX,
    encode_acknowledged,
    segment_name,
)
from edge_proxy.usage.journal.reader import JournalReader, read_acknowledged
from edge_proxy.usage.journal.segments import Damage, bytes_behind, first_position, segment_files, survey

# A journal is hidden only between two system calls; one that is still hidden after this long never came to be.
UNBORN_SECONDS: Final = 60.0

_OURS: Final = frozenset({LOCK_NAME, ACKNOWLEDGED_NAME})

log = structlog.get_logger()


class NotRead(Exception):
    """A journal was to be removed before all of it was read."""


class AdoptedJournal:
    """A journal that a dead worker left, and that this worker now owns.

    Args:
        path: Its folder.
        journal_id: Its name.
        lock: The descriptor of its lock file, held.
        files: The system calls.
    """

    def __init__(self, path: Path, journal_id: UUID, lock: int, files: Files) -> None:
        self.path = path
        self.journal_id = journal_id
        self.damage = Damage()
        self._files = files
        self._lock = lock
        acknowledged = read_acknowledged(path)
        self._places = survey(path, journal_id, acknowledged, self.damage)
        self._end = self._places[-1].end if self._places else 0
        self.position = first_position(self._places, acknowledged)
        self.reader = JournalReader(path, journal_id, lambda: self._places, self.damage)

    @property
    def bytes_held(self) -> int:
        """Return the bytes that are still to be sent."""
        return bytes_behind(self._places, self.position)

    def acknowledge(self, position: int) -> None:
        """Note that the sink has committed everything before a position, and remove segments that are done with."""
        self.position = max(self.position, position)
        with contextlib.suppress(OSError):
            # A note that is too old only means sending again.
            (self.path / ACKNOWLEDGED_NAME).write_bytes(encode_acknowledged(self.position))
        while self._places and self._places[0].end <= self.position:
            try:
                self._remove(self._places[0].number)
            except OSError as error:
                log.warning("journal_segment_not_removed", journal=str(self.journal_id), error=str(error))
                return
            self._places = self._places[1:]

    def finish(self) -> None:
        """Remove it: everything in it has been read and committed.

        Raises:
            NotRead: It has not.
            OSError: Something could not be removed or moved; call again.
        """
        if self.position < self._end:
            raise NotRead(str(self.path))
        self.reader.close()
        while self._places:
            self._remove(self._places[0].number)
            self._places = self._places[1:]
        for entry in sorted(self.path.iterdir()):
            if entry.name not in _OURS and not _is_empty(entry):
                quarantine.put_away(self._files, self.path.parent, entry)
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == LOCK_NAME):
            self._files.unlink(entry)
        self.path.rmdir()
        self._files.sync_folder(self.path.parent)
        self._release()

    def let_go(self) -> None:
        """Leave it for another worker, or for the next start."""
        self.reader.close()
        self._release()

    def _release(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _remove(self, number: int) -> None:
        path = self.path / segment_name(number)
        if number in self.damage.segments and path.exists():
            quarantine.put_away(self._files, self.path.parent, path)
        else:
            self._files.unlink(path)


def adopt(root: Path, files: Files | None = None) -> list[AdoptedJournal]:
    """Take over every journal that nobody holds."""
    files = files or OsFiles()
    adopted = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            journal_id = UUID(path.name)
        except ValueError:
            _clear_unborn(path, files)
            continue
        lock = _try_lock(path)
        if lock is None:
            continue
        try:
            adopted.append(AdoptedJournal(path, journal_id, lock, files))
        except OSError as error:
            os.close(lock)
            log.error("journal_not_adopted", journal=path.name, error=str(error))  # noqa: TRY400 - says it all
            continue
        log.info("journal_adopted", journal=path.name)
    return adopted


def _try_lock(path: Path) -> int | None:
    try:
        # A journal whose lock file is lost is nobody's: with records in it, it must not lie there for ever.
        create = os.O_CREAT if path.is_dir() and segment_files(path) else 0
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | create, 0o600)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (path / LOCK_NAME).stat().st_ino == os.fstat(lock).st_ino:
            return lock
    os.close(lock)
    return None


def _clear_unborn(path: Path, files: Files) -> None:
    """Remove what a worker left that died before its journal could be seen: a lock and a note, or a probe for space."""
    with contextlib.suppress(OSError):
        is_old = time.time() - path.stat().st_mtime > UNBORN_SECONDS
        if not path.name.startswith(".") or not is_old:
            return
        if path.is_file() and path.name.endswith(PROBE_SUFFIX):
            files.unlink(path)
        elif {entry.name for entry in path.iterdir()} <= _OURS:
            for entry in path.iterdir():
                files.unlink(entry)
            path.rmdir()


def _is_empty(path: Path) -> bool:
    """Tell whether a file holds nothing: a segment that its writer had only just made."""
    return path.is_file() and path.stat().st_size == 0
