"""Appends events to the journal of this worker.

Everything that is appended in one turn of the event loop goes out in one `write`; its futures then resolve, and only
then does the pipeline send the last bytes of the answers. Once `write` has returned, the record is in the kernel's page
cache: the process can be killed in any way and nothing is lost. Against a loss of power a background thread calls
`fdatasync` every `sync_interval_seconds`, so that much can be lost (README says so).

The journal's size is bounded. `has_room` is asked before a request is let in and reserves the largest event for each
request in flight, so an event never finds the journal full.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal.format import (
    ACKNOWLEDGED_NAME,
    EVENT_BYTES_MAX,
    HEADER_BYTES,
    LOCK_NAME,
    RECORD_OVERHEAD_BYTES,
    SegmentHeader,
    encode_acknowledged,
    encode_header,
    encode_record,
    segment_name,
)

RESERVED_BYTES_PER_REQUEST: Final = EVENT_BYTES_MAX + RECORD_OVERHEAD_BYTES

log = structlog.get_logger()


class JournalBroken(Exception):
    """The journal cannot be written any more."""


class JournalWriter:
    """The journal that this worker writes.

    Args:
        root: Folder of all journals.
        journal_id: Names this one.
        bytes_max: Bound on everything that is held.
        segment_bytes_max: A segment is closed once it has reached this size.
        sync_interval_seconds: How often to force pages to the disk; 0 leaves it to the kernel.
    """

    def __init__(
        self,
        root: Path,
        journal_id: UUID,
        *,
        bytes_max: int,
        segment_bytes_max: int,
        sync_interval_seconds: float,
    ) -> None:
        self.journal_id = journal_id
        self.path = root / str(journal_id)
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._sync_interval_seconds = sync_interval_seconds
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._tick: asyncio.Future[None] | None = None
        # Number and end position of closed segments that are still there.
        self._closed: deque[tuple[int, int]] = deque()
        self._segment_number = 0
        self._segment_base = 0
        self._held_from = 0
        self._is_dirty = False
        self.position = 0
        self.acknowledged = 0
        self.is_broken = False
        self._lock = self._create(root)
        self._acknowledged_file = os.open(self.path / ACKNOWLEDGED_NAME, os.O_WRONLY | os.O_CREAT, 0o600)
        self._file = self._open_segment()

    @property
    def bytes_held(self) -> int:
        """Return the bytes that are on disk."""
        return self.position - self._held_from

    def has_room(self, requests_in_flight: int) -> bool:
        """Tell whether the events of so many requests are sure to fit."""
        reserved = requests_in_flight * RESERVED_BYTES_PER_REQUEST
        return not self.is_broken and self.bytes_held + reserved <= self._bytes_max

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
        """Note that the sink has committed everything before a position, and drop what is no longer needed."""
        if position <= self.acknowledged:
            return
        self.acknowledged = position
        os.pwrite(self._acknowledged_file, encode_acknowledged(position), 0)
        while self._closed and self._closed[0][1] <= position:
            number, end = self._closed.popleft()
            (self.path / segment_name(number)).unlink(missing_ok=True)
            self._held_from = end

    async def sync_forever(self) -> None:
        """Force written pages to the disk, off the event loop, until cancelled."""
        while self._sync_interval_seconds:
            await asyncio.sleep(self._sync_interval_seconds)
            if self._is_dirty:
                self._is_dirty = False
                # A copy of the descriptor: the segment may be closed in between.
                descriptor = os.dup(self._file)
                try:
                    await self._loop.run_in_executor(None, os.fdatasync, descriptor)
                finally:
                    os.close(descriptor)

    def close(self) -> None:
        """Let go of the journal; remove it where everything in it was acknowledged."""
        self._flush()
        os.close(self._file)
        os.close(self._acknowledged_file)
        if self.acknowledged >= self.position and not self.is_broken:
            remove_folder(self.path)
        os.close(self._lock)

    def _create(self, root: Path) -> int:
        """Make the folder so that it is locked from the moment it can be seen."""
        root.mkdir(parents=True, exist_ok=True)
        hidden = root / f".{self.journal_id}.new"
        hidden.mkdir(mode=0o700)
        lock = os.open(hidden / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(self.path)
        return lock

    def _open_segment(self) -> int:
        self._segment_number += 1
        self._segment_base = self.position
        header = SegmentHeader(
            journal_id=self.journal_id, number=self._segment_number, base_position=self._segment_base
        )
        path = self.path / segment_name(self._segment_number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        os.write(descriptor, encode_header(header))
        return descriptor

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        tick, self._tick = self._tick, None
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        try:
            self._write(data)
        except OSError as error:
            self.is_broken = True
            log.critical("journal_not_written", error=str(error))
            if tick is not None:
                tick.set_exception(JournalBroken(str(error)))
            return
        self._is_dirty = True
        if tick is not None:
            tick.set_result(None)

    def _write(self, data: bytes) -> None:
        if self.is_broken:
            raise OSError("an earlier write failed")
        written = os.write(self._file, data)
        if written != len(data):
            # Disk full in the middle of a record: take the part back, so that the tail stays whole.
            os.ftruncate(self._file, HEADER_BYTES + self.position - self._segment_base)
            raise OSError("no space left for a whole record")
        self.position += written
        if self.position - self._segment_base >= self._segment_bytes_max:
            self._roll()

    def _roll(self) -> None:
        os.fdatasync(self._file) if self._sync_interval_seconds else None
        os.close(self._file)
        self._closed.append((self._segment_number, self.position))
        self._file = self._open_segment()


def remove_folder(path: Path) -> None:
    """Remove a journal that is no longer needed; its lock file goes last but one, the folder last."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == LOCK_NAME):
        entry.unlink(missing_ok=True)
    path.rmdir()
