"""Reads a journal's records in order, from any position that is a record's start.

Where the bytes are not what they should be, reading goes on at the next record that checks, or at the next segment.
What was passed over is counted in `Damage`, each byte once, however often it is read again after the sink was away, and
the segment is noted so that it is kept for a person. A segment that cannot be opened for want of descriptors or memory
is not damaged: reading stops there and is tried again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal.files import is_passing
from edge_proxy.usage.journal.format import ACKNOWLEDGED_NAME, HEADER_BYTES, decode_acknowledged, scan, segment_name
from edge_proxy.usage.journal.segments import Damage, Place

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
    """Reads one journal.

    Args:
        path: The journal's folder.
        journal_id: Its name.
        places: Says where the records lie; asked at each read, because a writer goes on.
        damage: Where losses are counted.
    """

    def __init__(self, path: Path, journal_id: UUID, places: Callable[[], Sequence[Place]], damage: Damage) -> None:
        self._path = path
        self._journal_id = journal_id
        self._places = places
        self._damage = damage
        self._descriptor = -1
        self._number = 0
        self._reported_to = 0

    def read(self, position: int, *, count_max: int) -> Batch:
        """Read up to `count_max` events from a position on.

        A stretch that cannot be read ends the batch, so that a journal full of rubbish holds nobody up.

        Raises:
            OSError: This process lacks what it needs to read; call again from the same position.
        """
        payloads: list[bytes] = []
        places = self._places()
        while len(payloads) < count_max:
            place = next((each for each in places if each.end > position), None)
            if place is None:
                break
            if position < place.base:
                self._report_gap(position, place)
                position = place.base
            start = position
            try:
                position, found = self._read_piece(place, position, count_max - len(payloads))
            except OSError:
                if not payloads:
                    raise
                break
            payloads += found
            if not found and position > start:
                break
        return Batch(journal_id=self._journal_id, next_position=position, payloads=payloads)

    def close(self) -> None:
        """Let go of the open segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._number = 0

    def _read_piece(self, place: Place, position: int, count_max: int) -> tuple[int, list[bytes]]:
        wanted = min(READ_BYTES_MAX, place.end - position)
        data = self._bytes(place, position, wanted)
        reaches_end = len(data) < wanted or position + len(data) >= place.end
        found = scan(data, count_max=count_max, is_last=reaches_end)
        next_position = position + found.size
        for start, end in found.corrupt:
            self._report_corrupt(place, position + start, position + end)
        if found.size == 0 or (reaches_end and not found.payloads):
            # Nothing more can be read in this segment.
            self._report_tail(place, next_position, is_cut_off=found.is_cut_off)
            next_position = place.end
        return next_position, found.payloads

    def _bytes(self, place: Place, position: int, wanted: int) -> bytes:
        try:
            self._open(place.number)
            return os.pread(self._descriptor, wanted, HEADER_BYTES + position - place.base)
        except OSError as error:
            if is_passing(error):
                raise
            log.error(  # noqa: TRY400 - the reason says it all
                "journal_segment_unreadable", journal=str(self._journal_id), segment=place.number, error=str(error)
            )
            return b""

    def _open(self, number: int) -> None:
        if number == self._number and self._descriptor >= 0:
            return
        self.close()
        self._descriptor = os.open(self._path / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        self._number = number

    def _unreported(self, start: int, end: int) -> int:
        """Return how many bytes of a range were not reported before, and note them."""
        count = end - max(start, self._reported_to)
        self._reported_to = max(self._reported_to, end)
        return max(0, count)

    def _report_gap(self, position: int, place: Place) -> None:
        count = self._unreported(position, place.base)
        self._damage.gap_bytes += count
        if count:
            log.error("journal_gap", journal=str(self._journal_id), gap_bytes=count, next_segment=place.number)

    def _report_corrupt(self, place: Place, start: int, end: int) -> None:
        self._damage.segments.add(place.number)
        count = self._unreported(start, end)
        self._damage.corrupt_bytes += count
        if count:
            log.error(
                "journal_corrupt",
                journal=str(self._journal_id),
                segment=place.number,
                corrupt_bytes=count,
                next_position=end,
            )

    def _report_tail(self, place: Place, position: int, *, is_cut_off: bool) -> None:
        if position >= place.end:
            return
        if place.may_be_torn and is_cut_off:
            self._damage.torn_bytes += self._unreported(position, place.end)
        else:
            self._report_corrupt(place, position, place.end)


def read_acknowledged(path: Path) -> int | None:
    """Return the position that the sink had committed when a journal was left; None where that cannot be read."""
    try:
        return decode_acknowledged((path / ACKNOWLEDGED_NAME).read_bytes())
    except OSError:
        return None
