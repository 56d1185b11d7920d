from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from edge_proxy.usage.journal.adoption import adopt
from edge_proxy.usage.journal.format import HEADER_BYTES, encode_record, segment_name
from edge_proxy.usage.journal.reader import JournalReader
from edge_proxy.usage.journal.writer import JournalWriter

ID = UUID(int=1)


@pytest.fixture
async def writer(tmp_path: Path):
    made = JournalWriter(tmp_path, ID, bytes_max=1 << 20, segment_bytes_max=1 << 10, sync_interval_seconds=0.0)
    yield made
    if not made.is_broken:
        made.close()


async def fill(writer: JournalWriter, count: int) -> list[bytes]:
    payloads = [b"event-%05d" % number * 5 for number in range(count)]
    for start in range(0, count, 7):
        waiting = [writer.append(payload) for payload in payloads[start : start + 7]]
        await asyncio.gather(*set(waiting))
    return payloads


def read_all(reader: JournalReader, start: int, end: int | None, count_max: int = 10) -> tuple[list[bytes], int]:
    read, position = [], start
    while (batch := reader.read(position, end=end, count_max=count_max)).next_position > position:
        assert len(batch.payloads) <= count_max
        read += batch.payloads
        position = batch.next_position
    return read, position


async def test_appends_of_one_turn_share_a_future_and_a_write(writer):
    first, second = writer.append(b"a"), writer.append(b"b")
    assert first is second
    assert writer.position == 0
    await first
    assert writer.position == len(encode_record(b"a")) * 2
    assert writer.append(b"c") is not first
    await asyncio.sleep(0)


async def test_reader_follows_the_writer_over_segments(writer, tmp_path):
    payloads = await fill(writer, 100)
    reader = JournalReader(writer.path, ID)
    assert len(list(writer.path.glob("*.segment"))) > 3
    read, position = read_all(reader, 0, writer.position)
    assert (read, position) == (payloads, writer.position)
    assert reader.read(position, end=writer.position, count_max=10).payloads == []
    more = await fill(writer, 5)
    assert read_all(reader, position, writer.position)[0] == more
    reader.close()


async def test_acknowledged_segments_are_dropped_and_count_no_longer(writer):
    await fill(writer, 100)
    held = writer.bytes_held
    writer.acknowledge(writer.position // 2)
    assert writer.bytes_held < held
    assert not (writer.path / segment_name(1)).exists()
    writer.acknowledge(writer.position)
    assert len(list(writer.path.glob("*.segment"))) == 1


async def test_room_is_reserved_for_requests_in_flight(writer):
    assert writer.has_room(200)
    assert not writer.has_room(300)


async def test_held_journal_is_not_adopted_and_a_left_one_is_read_from_where_it_was_acknowledged(writer, tmp_path):
    payloads = await fill(writer, 40)
    reader = JournalReader(writer.path, ID)
    batch = reader.read(0, end=writer.position, count_max=30)
    writer.acknowledge(batch.next_position)
    assert adopt(tmp_path) == []
    writer.close()
    (journal,) = adopt(tmp_path)
    assert adopt(tmp_path) == []
    read, _ = read_all(journal.reader, journal.acknowledged, None)
    assert read == payloads[30:]
    journal.finish()
    assert list(tmp_path.iterdir()) == []
    writer.is_broken = True


async def test_lost_acknowledgement_starts_at_the_first_segment_that_is_there(writer, tmp_path):
    payloads = await fill(writer, 100)
    writer.acknowledge(writer.position // 2)
    writer.close()
    (writer.path / "acknowledged").unlink()
    (journal,) = adopt(tmp_path)
    read, _ = read_all(journal.reader, journal.acknowledged, None)
    assert read
    assert read == payloads[-len(read) :]
    journal.let_go()
    writer.is_broken = True


async def test_corrupt_record_is_reported_and_the_rest_is_read(writer, tmp_path):
    payloads = await fill(writer, 100)
    writer.close()
    path = writer.path / segment_name(2)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 12] ^= 0xFF
    path.write_bytes(bytes(content))
    (journal,) = adopt(tmp_path)
    read, _ = read_all(journal.reader, journal.acknowledged, None)
    assert len(read) == len(payloads) - 1
    assert set(read) < set(payloads)
    assert journal.reader.corrupt_bytes == len(encode_record(payloads[0]))
    journal.finish()
    writer.is_broken = True


async def test_empty_journal_is_removed_on_close(tmp_path):
    writer = JournalWriter(tmp_path, ID, bytes_max=1 << 20, segment_bytes_max=1 << 14, sync_interval_seconds=0)
    writer.close()
    assert list(tmp_path.iterdir()) == []
