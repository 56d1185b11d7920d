"""Where a journal's records lie: which segment holds which positions, worked out from whatever is left on the disk.

The writer knows its own segments. Of a journal that a dead worker left, only the files tell, and any of them may be
damaged. `survey` looks at all of them once and gives each a range of positions, by these rules:

* A segment's number is in its name. Its header must name the same number and this journal; otherwise the header counts
  as damaged. The records behind a damaged header are read all the same: each has a sum of its own.
* A sound header says where its segment begins. What an earlier segment holds beyond that was never acknowledged to a
  client (the writer gave the segment up in the middle of a write) and is not read.
* A segment with a damaged header begins where the one before it ends, or ends where the next one begins. If that leaves
  no room for the next one, that one moves on: positions are only for order and for starting, and no record is cut off
  for a place that was guessed.
* Positions that no segment holds are a gap: those records are lost, and the reader reports them.

Nothing is judged by its absence alone: a missing number without missing positions is a segment that never had records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from edge_proxy.usage.journal.files import is_passing
from edge_proxy.usage.journal.format import HEADER_BYTES, SEGMENT_SUFFIX, NotASegment, decode_header

_NAME: Final = re.compile(rf"([0-9]{{16}}){re.escape(SEGMENT_SUFFIX)}")

log = structlog.get_logger()


@dataclass(slots=True)
class Damage:
    """What could not be read, as numbers for the metrics; `segments` are kept for a person to look at."""

    corrupt_bytes: int = 0
    gap_bytes: int = 0
    torn_bytes: int = 0
    headers: int = 0
    segments: set[int] = field(default_factory=set)

    def add(self, other: Damage) -> None:
        """Add the numbers of another journal; whose segments they are is not kept."""
        self.corrupt_bytes += other.corrupt_bytes
        self.gap_bytes += other.gap_bytes
        self.torn_bytes += other.torn_bytes
        self.headers += other.headers

    def __bool__(self) -> bool:
        """Tell whether anything is lost or doubtful; a torn tail is what a crash leaves, and no damage."""
        return bool(self.corrupt_bytes or self.gap_bytes or self.headers or self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A segment and the positions of its records, from `base` up to `end`.

    Args:
        number: The segment.
        base: Position of its first record.
        end: Position behind its last.
        may_be_torn: Whether its writer may have died inside its last record.
        is_placed: Whether its header says where it lies; otherwise its place was inferred, and may be too late.
    """

    number: int
    base: int
    end: int
    may_be_torn: bool = False
    is_placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    number: int
    size: int
    base: int | None


def survey(path: Path, journal_id: UUID, acknowledged: int | None, damage: Damage) -> list[Place]:
    """Say where the records of a journal lie that nobody writes any more.

    Args:
        path: The journal's folder.
        journal_id: Whose headers are right.
        acknowledged: Up to where the sink has committed; None where that is not known.
        damage: Gets the headers that are not right.

    Raises:
        OSError: The folder cannot be read, or this process lacks what it needs to read its files.
    """
    found = [_look_at(path / name, number, journal_id) for number, name in segment_files(path)]
    places: list[Place] = []
    for index, each in enumerate(found):
        is_last = index == len(found) - 1
        if each.size == -HEADER_BYTES and is_last:
            # Its writer died before it wrote anything: an empty file holds no records.
            continue
        base, is_placed = each.base, True
        if base is None or (places and base < places[-1].base):
            damage.headers += 1
            damage.segments.add(each.number)
            log.error("journal_header_damaged", journal=str(journal_id), segment=each.number)
            base, is_placed = _inferred_base(each, found[index + 1 :], places, acknowledged), False
        elif places and base < places[-1].end and not places[-1].is_placed:
            base, is_placed = places[-1].end, False
        elif places and base < places[-1].end:
            damage.torn_bytes += places[-1].end - base
            places[-1] = replace(places[-1], end=base)
        places.append(
            Place(
                number=each.number,
                base=base,
                end=base + max(0, each.size),
                may_be_torn=is_last,
                is_placed=is_placed,
            )
        )
    return places


def segment_files(path: Path) -> list[tuple[int, str]]:
    """Return the segments of a folder by number, with their names."""
    matches = ((entry.name, _NAME.fullmatch(entry.name)) for entry in path.iterdir())
    return sorted((int(match[1]), name) for name, match in matches if match)


def first_position(places: Sequence[Place], acknowledged: int | None) -> int:
    """Return where to start reading.

    That is what was acknowledged, or the first record where that is not known. In a segment whose place was only
    inferred it is the segment's start: reading too much is counted once, reading too little is not counted at all.
    """
    if not places:
        return acknowledged or 0
    start = places[0].base if acknowledged is None else acknowledged
    holder = next((place for place in places if place.base <= start < place.end), None)
    return start if holder is None or holder.is_placed else holder.base


def bytes_behind(places: Iterable[Place], position: int) -> int:
    """Return how many bytes of records lie behind a position."""
    return sum(max(0, place.end - max(position, place.base)) for place in places)


def _look_at(path: Path, number: int, journal_id: UUID) -> _Found:
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        size = path.stat().st_size - HEADER_BYTES
    except OSError as error:
        if is_passing(error):
            raise
        log.error("journal_segment_unreadable", segment=str(path), error=str(error))  # noqa: TRY400 - says it all
        return _Found(number=number, size=0, base=None)
    try:
        header = decode_header(head)
    except NotASegment:
        return _Found(number=number, size=size, base=None)
    is_ours = header.journal_id == journal_id and header.number == number
    return _Found(number=number, size=size, base=header.base_position if is_ours else None)


def _inferred_base(each: _Found, later: Sequence[_Found], places: Sequence[Place], acknowledged: int | None) -> int:
    if places:
        return places[-1].end
    if later and later[0].base is not None:
        return max(0, later[0].base - max(0, each.size))
    return acknowledged or 0
