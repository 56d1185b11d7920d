"""Any damage to any bytes of a left journal loses the records that it hit, and no other, and says how much that was."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_proxy.usage.journal.adoption import adopt
from edge_proxy.usage.journal.format import HEADER_BYTES, RECORD_OVERHEAD_BYTES, segment_name
from edge_proxy.usage.journal.segments import Damage
from edge_proxy.usage.journal.writer import JournalWriter

ID = UUID(int=1)
RECORD_COUNT = 40


@dataclass(frozen=True)
class Record:
    """Where a record lies: its segment, and its bytes there without the header."""

    segment: int
    start: int
    end: int
    payload: bytes


@dataclass(frozen=True)
class Journal:
    root: Path
    records: list[Record]
    segments: int

    def path(self, segment: int) -> Path:
        return self.root / str(ID) / segment_name(segment)

    def untouched(self, segment: int, start: int, end: int) -> list[Record]:
        """Return the records that a range of a segment, counted without its header, has nothing of."""
        return [each for each in self.records if each.segment != segment or each.end <= start or each.start >= end]


async def journal(root: Path, sizes: list[int]) -> Journal:
    writer = JournalWriter(root, ID, bytes_max=1 << 20, segment_bytes_max=300, sync_interval_seconds=0)
    records: list[Record] = []
    for number, size in enumerate(sizes):
        payload = b"%04d" % number + os.urandom(size)
        place = writer.places()[-1]
        start = writer.position - place.base
        await writer.append(payload)
        records.append(Record(place.number, start, start + RECORD_OVERHEAD_BYTES + len(payload), payload))
    segments = writer.places()[-1].number
    writer.close()
    return Journal(root, records, segments)


def read_to_the_end(root: Path) -> tuple[list[bytes], Damage]:
    (left,) = adopt(root)
    read: list[bytes] = []
    while (batch := left.reader.read(left.position, count_max=7)).next_position > left.position:
        read += batch.payloads
        left.acknowledge(batch.next_position)
    left.finish()
    return read, left.damage


def lost_bytes(made: Journal, read: list[bytes]) -> int:
    return sum(each.end - each.start for each in made.records if each.payload not in read)


SIZES = st.lists(st.integers(1, 120), min_size=5, max_size=RECORD_COUNT)


@settings(max_examples=150, deadline=None)
@given(SIZES, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=6))
def test_flipped_bits_lose_the_records_that_they_hit_and_every_lost_byte_is_reported(tmp_path_factory, sizes, flips):
    made = asyncio.run(journal(tmp_path_factory.mktemp("j") / "journal", sizes))
    hit: set[bytes] = set()
    contents = {number: bytearray(made.path(number).read_bytes()) for number in range(1, made.segments + 1)}
    for where, bit in flips:
        record = made.records[int(where * len(made.records))]
        offset = record.start + int(where * 7919) % (record.end - record.start)
        contents[record.segment][HEADER_BYTES + offset] ^= 1 << bit
    for number, content in contents.items():
        before = made.path(number).read_bytes()
        hit |= {
            each.payload
            for each in made.records
            if each.segment == number
            and before[HEADER_BYTES + each.start : HEADER_BYTES + each.end]
            != content[HEADER_BYTES + each.start : HEADER_BYTES + each.end]
        }
        made.path(number).write_bytes(bytes(content))
    read, damage = read_to_the_end(made.root)
    assert read == [each.payload for each in made.records if each.payload not in hit]
    assert damage.corrupt_bytes + damage.torn_bytes == lost_bytes(made, read)
    assert damage.gap_bytes == damage.headers == 0


@settings(max_examples=150, deadline=None)
@given(SIZES.filter(lambda sizes: sum(sizes) > 700), st.data())
def test_segments_that_are_cut_or_missing_lose_what_is_gone_and_it_is_reported(tmp_path_factory, sizes, data):
    made = asyncio.run(journal(tmp_path_factory.mktemp("j") / "journal", sizes))
    # What is missing at the very end of a journal cannot be told from what was never written.
    number = data.draw(st.integers(1, made.segments - 1))
    path = made.path(number)
    size = path.stat().st_size - HEADER_BYTES
    kept = data.draw(st.one_of(st.none(), st.integers(0, size)))
    if kept is None:
        path.unlink()
    else:
        os.truncate(path, HEADER_BYTES + kept)
    read, damage = read_to_the_end(made.root)
    assert read == [each.payload for each in made.untouched(number, kept or 0, size)]
    assert damage.corrupt_bytes + damage.gap_bytes == lost_bytes(made, read)


DAMAGE = st.tuples(
    st.sampled_from(["flip", "zero", "cut", "remove", "extend", "header"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)


def hurt(path: Path, kind: str, where: float) -> tuple[int, int]:
    """Damage a segment; return the range, without the header, of which nothing is sure any more."""
    content = bytearray(path.read_bytes())
    size = max(0, len(content) - HEADER_BYTES)
    start = int(where * size)
    end = min(size, start + 20)
    match kind:
        case "remove":
            path.unlink()
            return 0, size
        case "cut":
            os.truncate(path, min(len(content), HEADER_BYTES + start))
            return start, size
        case "extend":
            path.write_bytes(content + os.urandom(int(where * 200)))
            return 0, 0
        case "header":
            content[int(where * min(HEADER_BYTES, len(content) - 1))] ^= 0x08
            end = start
        case "zero":
            content[HEADER_BYTES + start : HEADER_BYTES + end] = bytes(end - start)
        case "flip" if size:
            content[HEADER_BYTES + start] ^= 0x40
    path.write_bytes(content)
    return start, end


@settings(max_examples=200, deadline=None)
@given(SIZES, st.lists(DAMAGE, min_size=1, max_size=4))
# The segment behind a longer one has lost its header, so its place is guessed, and the one behind it says otherwise.
@example([1, 1, 1, 117, 120, 24, 120, 120, *[1] * 15, 106], [("extend", 0.0, 0.5), ("header", 0.25, 0.0)])
def test_whatever_happens_to_the_files_no_untouched_record_is_lost_and_nothing_unread_is_deleted(
    tmp_path_factory, sizes, damages
):
    made = asyncio.run(journal(tmp_path_factory.mktemp("j") / "journal", sizes))
    safe = {each.payload for each in made.records}
    for kind, which, where in damages:
        number = 1 + int(which * made.segments)
        path = made.path(number)
        if not path.exists():
            continue
        start, end = hurt(path, kind, where)
        safe &= {each.payload for each in made.untouched(number, start, end)}
    read, damage = read_to_the_end(made.root)
    assert safe <= set(read)
    assert set(read) <= {each.payload for each in made.records}
    in_quarantine = {path.name for path in made.root.with_name("quarantine").rglob("*.segment")}
    assert {segment_name(number) for number in damage.segments} >= in_quarantine
