"""Appends events to the journal of this worker.

Everything that is appended in one turn of the event loop goes out in one `write`; its futures then resolve, and only
then does the pipeline send the last bytes of the answers. Once `write` has returned, the record is in the kernel's page
cache: the process can be killed in any way and nothing is lost. Against a loss of power a background thread flushes
files and folders every `sync_interval_seconds`, so that much can be lost (README says so).

The journal's size is bounded. `has_room` is asked before a request is let in and reserves the largest event for each
request in flight, so an event never finds the journal full. What was adopted from dead workers counts as well.

**A disk that is full, or fails.** A write that fails breaks the requests whose events it carried: their clients get no
whole answer. The journal is then *blocked*: `has_room` says no, so everybody else gets 503. `tend_forever` tries every
`RECOVER_SECONDS` whether `PROBE_BYTES` can be had, begins a new segment and unblocks. The segment that failed is never
written again, so whatever is left of the failed write lies behind the position at which the new segment begins, and is
not read. The same way a worker that starts on a full disk starts blocked, and heals.

A segment that cannot be begun when the one before it is full blocks nothing: the old one simply grows until it can.
A descriptor is closed only by whoever holds it, and is forgotten in the same statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal import quarantine
from edge_proxy.usage.journal.files import Files, OsFiles
from edge_proxy.usage.journal.format import (
    ACKNOWLEDGED_NAME,
    EVENT_BYTES_MAX,
    HEADER_BYTES,
    LOCK_NAME,
    PROBE_SUFFIX,
    RECORD_OVERHEAD_BYTES,
    SegmentHeader,
    encode_acknowledged,
    encode_header,
    encode_record,
    segment_name,
)
from edge_proxy.usage.journal.segments import Damage, Place

RESERVED_BYTES_PER_REQUEST: Final = EVENT_BYTES_MAX + RECORD_OVERHEAD_BYTES
RECOVER_SECONDS: Final = 1.0
# Enough that a journal which has just recovered does not block again with the first events.
PROBE_BYTES: Final = 1 << 20

log = structlog.get_logger()


class JournalBroken(Exception):
    """The event could not be written."""


class JournalWriter:
    """The journal that this worker writes.

    Args:
        root: Folder of all journals.
        journal_id: Names this one.
        bytes_max: Bound on everything that is held.
        segment_bytes_max: A segment is closed once it has reached this size.
        sync_interval_seconds: How often to force pages to the disk; 0 leaves it to the kernel.
        files: The system calls.
    """

    def __init__(
        self,
        root: Path,
        journal_id: UUID,
        *,
        bytes_max: int,
        segment_bytes_max: int,
        sync_interval_seconds: float,
        files: Files | None = None,
    ) -> None:
        self.journal_id = journal_id
        self.path = root / str(journal_id)
        self.damage = Damage()
        self.adopted_bytes = 0
        self.position = 0
        self.acknowledged = 0
        self.blocked_by = ""
        self.write_failures = 0
        self.sync_failures = 0
        self.recoveries = 0
        self._root = root
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._sync_interval_seconds = sync_interval_seconds
        self._files: Files = files or OsFiles()
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._tick: asyncio.Future[None] | None = None
        self._closed: deque[Place] = deque()
        self._number = 0
        self._base = 0
        self._roll_at = segment_bytes_max
        # Descriptors: -1 where there is none.
        self._lock = -1
        self._acknowledged_file = -1
        self._segment = -1
        # What the next flush to the disk has to do, beside the current segment.
        self._is_dirty = False
        self._retired: list[int] = []
        self._changed_folders: set[Path] = set()
        try:
            self._make()
        except OSError as error:
            self._block(error)

    @property
    def bytes_held(self) -> int:
        """Return the bytes of this journal that are on disk."""
        return self.position - (self._closed[0].base if self._closed else self._base)

    @property
    def is_blocked(self) -> bool:
        """Tell whether nothing can be written at the moment."""
        return bool(self.blocked_by)

    def has_room(self, requests_in_flight: int) -> bool:
        """Tell whether the events of so many requests are sure to fit."""
        reserved = requests_in_flight * RESERVED_BYTES_PER_REQUEST
        return not self.blocked_by and self.bytes_held + self.adopted_bytes + reserved <= self._bytes_max

    def places(self) -> Sequence[Place]:
        """Return where the records lie that are still there."""
        return [*self._closed, Place(number=self._number, base=self._base, end=self.position)]

    def append(self, payload: bytes) -> asyncio.Future[None]:
        """Append an event; the future resolves once it survives the end of this process.

        The future is shared by all appends of this turn of the loop: do not cancel it.

        Raises:
            RecordTooLarge: The event is above `EVENT_BYTES_MAX`.
        """
        self._pending.append(encode_record(payload))
        tick = self._tick
        if tick is None:
            tick = self._tick = self._loop.create_future()
            self._loop.call_soon(self._flush)
        return tick

    def acknowledge(self, position: int) -> None:
        """Note that the sink has committed everything before a position, and let go of what is no longer needed."""
        if position <= self.acknowledged:
            return
        self.acknowledged = position
        with contextlib.suppress(OSError):
            # A note that is too old only means sending again.
            self._files.overwrite(self._acknowledged_file, encode_acknowledged(position))
        while self._closed and self._closed[0].end <= position:
            place = self._closed.popleft()
            self._remove(self.path / segment_name(place.number), is_damaged=place.number in self.damage.segments)

    async def tend_forever(self) -> None:
        """Flush to the disk and recover from a full one, off the event loop, until cancelled."""
        interval_seconds = min(self._sync_interval_seconds or RECOVER_SECONDS, RECOVER_SECONDS)
        next_recovery = self._loop.time() + RECOVER_SECONDS
        while True:
            await asyncio.sleep(interval_seconds)
            if self._sync_interval_seconds:
                await self.sync()
            if self._loop.time() >= next_recovery:
                next_recovery = self._loop.time() + RECOVER_SECONDS
                if self.blocked_by:
                    self.try_to_recover()

    async def sync(self) -> None:
        """Force what was written to the disk. A failure is counted and blocks the journal until it has recovered."""
        retired, self._retired = self._retired, []
        folders, self._changed_folders = self._changed_folders, set()
        is_dirty, self._is_dirty = self._is_dirty and self._segment >= 0, False
        if not (retired or folders or is_dirty):
            return
        try:
            # A copy of the descriptor: the segment may be closed in between.
            descriptors = [*retired, os.dup(self._segment)] if is_dirty else retired
            await self._loop.run_in_executor(None, self._sync_all, descriptors, folders)
        except OSError as error:
            self.sync_failures += 1
            self._block(error)

    def try_to_recover(self) -> bool:
        """Begin a new segment where there is space for one; return whether the journal takes events again."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._files.allocate(self._root / f".{self.journal_id}{PROBE_SUFFIX}", PROBE_BYTES)
            self._make() if self._lock < 0 else self._begin_segment()
        except OSError as error:
            self.blocked_by = str(error)
            return False
        self.blocked_by = ""
        self.recoveries += 1
        log.warning("journal_recovered", journal=str(self.journal_id))
        return True

    def close(self) -> None:
        """Let go of the journal; remove it where everything in it was read and acknowledged."""
        self._flush()
        lock, self._lock = self._lock, -1
        acknowledged_file, self._acknowledged_file = self._acknowledged_file, -1
        segment, self._segment = self._segment, -1
        retired, self._retired = self._retired, []
        for descriptor in (acknowledged_file, segment, *retired):
            if descriptor >= 0:
                os.close(descriptor)
        if lock < 0:
            return
        if self.acknowledged >= self.position and not self.damage.segments:
            with contextlib.suppress(OSError):
                self._remove_folder()
        os.close(lock)

    def _remove_folder(self) -> None:
        """Remove the journal's own files, its lock last, and the folder where nothing else is in it."""
        for place in self.places():
            self._files.unlink(self.path / segment_name(place.number))
        for name in (ACKNOWLEDGED_NAME, LOCK_NAME):
            self._files.unlink(self.path / name)
        self.path.rmdir()

    # Making and rolling.

    def _make(self) -> None:
        """Make the folder so that it is locked from the moment it can be seen, and the first segment in it."""
        self._root.mkdir(parents=True, exist_ok=True)
        hidden = self._root / f".{self.journal_id}.new"
        self._files.make_folder(hidden)
        for left in (LOCK_NAME, ACKNOWLEDGED_NAME):
            self._files.unlink(hidden / left)
        lock = self._files.create(hidden / LOCK_NAME)
        acknowledged_file = -1
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Written in full now, so that noting a position later needs no space.
            acknowledged_file = self._files.create(hidden / ACKNOWLEDGED_NAME)
            _write_whole(self._files, acknowledged_file, encode_acknowledged(0))
            os.close(acknowledged_file)
            acknowledged_file = os.open(hidden / ACKNOWLEDGED_NAME, os.O_WRONLY | os.O_CLOEXEC)
            self._files.rename(hidden, self.path)
        except OSError:
            os.close(lock)
            if acknowledged_file >= 0:
                os.close(acknowledged_file)
            raise
        self._lock, self._acknowledged_file = lock, acknowledged_file
        self._changed_folders.add(self._root)
        self._begin_segment()

    def _begin_segment(self) -> None:
        """Begin a segment at the current position, and only then let go of the one before.

        Raises:
            OSError: There is none; the one before is still the current one.
        """
        number = self._number + 1
        path = self.path / segment_name(number)
        # What an attempt before this one left, whose end failed as well.
        self._files.unlink(path)
        header = SegmentHeader(journal_id=self.journal_id, number=number, base_position=self.position)
        descriptor = self._files.create(path)
        try:
            _write_whole(self._files, descriptor, encode_header(header))
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                self._files.unlink(path)
            raise
        before, self._segment = self._segment, descriptor
        if before >= 0:
            self._closed.append(Place(number=self._number, base=self._base, end=self.position))
            self._retired.append(before)
        self._number, self._base = number, self.position
        self._roll_at = self.position + self._segment_bytes_max
        self._changed_folders.add(self.path)
        if not self._sync_interval_seconds:
            self._close_retired()

    def _close_retired(self) -> None:
        retired, self._retired = self._retired, []
        for descriptor in retired:
            os.close(descriptor)

    # Writing.

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        tick, self._tick = self._tick, None
        if not pending:
            return
        try:
            self._write(pending[0] if len(pending) == 1 else b"".join(pending))
        except OSError as error:
            # The futures first: nothing that fails on the way may leave a client without an end.
            if tick is not None:
                tick.set_exception(JournalBroken(str(error)))
            self.write_failures += 1
            self._block(error)
            return
        if tick is not None:
            tick.set_result(None)
        self._is_dirty = True
        if self.position >= self._roll_at:
            self._roll()

    def _write(self, data: bytes) -> None:
        if self.blocked_by:
            raise OSError(errno.EIO, f"not written, because of an earlier failure: {self.blocked_by}")
        written = self._files.write(self._segment, data)
        if written != len(data):
            # Disk full in the middle of a record: take the part back, so that the tail stays whole.
            with contextlib.suppress(OSError):
                self._files.truncate(self._segment, HEADER_BYTES + self.position - self._base)
            raise OSError(errno.ENOSPC, "no space left for a whole record")
        self.position += written

    def _roll(self) -> None:
        try:
            self._begin_segment()
        except OSError as error:
            # What was written is written. The segment grows; another attempt comes after as much again.
            self._roll_at = self.position + self._segment_bytes_max
            log.warning("journal_segment_not_begun", journal=str(self.journal_id), error=str(error))

    def _block(self, error: OSError) -> None:
        if not self.blocked_by:
            log.critical("journal_blocked", journal=str(self.journal_id), error=str(error))
        self.blocked_by = str(error)

    def _sync_all(self, descriptors: list[int], folders: set[Path]) -> None:
        """Flush files, then the folders that name them; the descriptors are this call's and are closed."""
        failed: OSError | None = None
        for descriptor in descriptors:
            try:
                self._files.sync(descriptor)
            except OSError as error:
                failed = error
            finally:
                os.close(descriptor)
        for folder in folders:
            try:
                self._files.sync_folder(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def _remove(self, path: Path, *, is_damaged: bool) -> None:
        try:
            if is_damaged:
                quarantine.put_away(self._files, self._root, path)
            else:
                self._files.unlink(path)
        except OSError as error:
            # It stays where it is; whoever adopts the journal reads it again and tries again.
            log.warning("journal_segment_not_removed", segment=str(path), error=str(error))
        self._changed_folders.add(self.path)


def _write_whole(files: Files, descriptor: int, data: bytes) -> None:
    if files.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, "no space left for a whole record")
