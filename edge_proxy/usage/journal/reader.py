"""Reads a journal's records in order, from any position that is a record's start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal.format import (
    ACKNOWLEDGED_NAME,
    HEADER_BYTES,
    SEGMENT_SUFFIX,
    NotASegment,
    decode_acknowledged,
    decode_header,
    scan,
)

READ_BYTES_MAX: Final = 1 << 18

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events on their way to the sink.

    Args:
        journal_id: Where they come from.
        next_position: Behind the last of them.
        payloads: Serialised events; none where there was nothing, or nothing readable.
    """

    journal_id: UUID
    next_position: int
    payloads: list[bytes]


class JournalReader:
    """Reads one journal. The writer may append meanwhile: `end` says how far is safe."""

    def __init__(self, path: Path, journal_id: UUID) -> None:
        self._path = path
        self._journal_id = journal_id
        self._file = -1
        self._base = 0
        self._name = ""
        self.corrupt_bytes = 0

    def read(self, position: int, *, end: int | None, count_max: int) -> Batch:
        """Read up to `count_max` events.

        Args:
            position: Where to start.
            end: Where the writer has got to, or None for a journal that nobody writes any more.
            count_max: How many at most.
        """
        payloads: list[bytes] = []
        while len(payloads) < count_max and (end is None or position < end):
            size = self._segment_size(position, is_live=end is not None)
            if size is None:
                break
            offset = position - self._base
            wanted = min(READ_BYTES_MAX, size - offset)
            data = os.pread(self._file, wanted, HEADER_BYTES + offset)
            is_last = offset + len(data) >= size
            found = scan(data, count_max=count_max - len(payloads), is_last=is_last)
            payloads += found.payloads
            position += found.size
            if found.corrupt_bytes:
                self._report(found.corrupt_bytes, position)
            if found.size == 0:
                if is_last and not self._has_successor():
                    break
                position = self._skip_rest(position, size)
        return Batch(journal_id=self._journal_id, next_position=position, payloads=payloads)

    def first_position(self, acknowledged: int) -> int:
        """Return where to start: what was acknowledged, or the first record that is still there."""
        return max(acknowledged, min((base for _, base in self._segments()), default=0))

    def close(self) -> None:
        """Let go of the open segment."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _segment_size(self, position: int, *, is_live: bool) -> int | None:
        """Open the segment that holds a position and return its size in record bytes."""
        if self._file >= 0:
            size = os.fstat(self._file).st_size - HEADER_BYTES
            if self._base <= position < self._base + size:
                return size
        for name, base in reversed(self._segments()):
            if base <= position:
                self._open(name, base)
                size = os.fstat(self._file).st_size - HEADER_BYTES
                return size if position < base + size or is_live else None
        # What held this position is gone: go on where the journal starts now.
        return None

    def _segments(self) -> list[tuple[str, int]]:
        segments = []
        for entry in sorted(self._path.glob(f"*{SEGMENT_SUFFIX}")):
            with entry.open("rb") as file:
                try:
                    segments.append((entry.name, decode_header(file.read(HEADER_BYTES)).base_position))
                except NotASegment:
                    # A header that was being written when the machine stopped: there are no records behind it.
                    log.warning("journal_segment_unreadable", journal=str(self._journal_id), segment=entry.name)
        return segments

    def _open(self, name: str, base: int) -> None:
        if name == self._name and self._file >= 0:
            return
        self.close()
        self._file = os.open(self._path / name, os.O_RDONLY)
        self._name, self._base = name, base

    def _has_successor(self) -> bool:
        return any(name > self._name for name, _ in self._segments())

    def _skip_rest(self, position: int, size: int) -> int:
        """Give up on the unreadable end of a segment that has a successor."""
        later = [base for name, base in self._segments() if name > self._name]
        target = min(later) if later else self._base + size
        self._report(target - position, target)
        return target

    def _report(self, corrupt_bytes: int, position: int) -> None:
        self.corrupt_bytes += corrupt_bytes
        log.error("journal_corrupt", journal=str(self._journal_id), corrupt_bytes=corrupt_bytes, next_position=position)


def read_acknowledged(path: Path) -> int:
    """Return the position that the sink had committed when a journal was left."""
    try:
        return decode_acknowledged((path / ACKNOWLEDGED_NAME).read_bytes())
    except OSError:
        return 0
