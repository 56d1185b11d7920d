from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from uuid import UUID

import pytest

from edge_proxy.usage.journal import quarantine
from edge_proxy.usage.journal.adoption import NotRead, adopt
from edge_proxy.usage.journal.files import OsFiles
from edge_proxy.usage.journal.format import HEADER_BYTES, encode_record, segment_name
from edge_proxy.usage.journal.reader import JournalReader
from edge_proxy.usage.journal.writer import PROBE_BYTES, JournalBroken, JournalWriter
from tests.support.faulty_files import FaultyFiles

ID = UUID(int=1)


def make(root: Path, journal_id: UUID = ID, **changes) -> JournalWriter:
    options = {"bytes_max": 1 << 20, "segment_bytes_max": 1 << 10, "sync_interval_seconds": 0.0}
    return JournalWriter(root, journal_id, **(options | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def writer(root: Path, files: FaultyFiles):
    made = make(root, files=files)
    yield made
    made.close()


async def fill(writer: JournalWriter, count: int, name: bytes = b"event") -> list[bytes]:
    payloads = [b"%b-%05d" % (name, number) * 5 for number in range(count)]
    for start in range(0, count, 7):
        waiting = [writer.append(payload) for payload in payloads[start : start + 7]]
        await asyncio.gather(*set(waiting))
    return payloads


def read_all(reader: JournalReader, start: int, count_max: int = 10) -> tuple[list[bytes], int]:
    read, position = [], start
    while (batch := reader.read(position, count_max=count_max)).next_position > position:
        assert len(batch.payloads) <= count_max
        read += batch.payloads
        position = batch.next_position
    return read, position


def read_adopted(root: Path) -> tuple[list[bytes], object]:
    """Adopt the journal that is left, read all of it as the sender would, and let it finish."""
    (journal,) = adopt(root)
    read, position = read_all(journal.reader, journal.position)
    journal.acknowledge(position)
    journal.finish()
    return read, journal.damage


def reader_of(writer: JournalWriter) -> JournalReader:
    return JournalReader(writer.path, ID, writer.places, writer.damage)


def quarantined(root: Path) -> list[str]:
    folder = quarantine.folder_of(root)
    return sorted(path.name for path in folder.rglob("*.segment*")) if folder.exists() else []


# Writing and reading.


async def test_appends_of_one_turn_share_a_future_and_a_write(writer, files):
    first, second = writer.append(b"a"), writer.append(b"b")
    assert first is second
    assert writer.position == 0
    await first
    assert writer.position == len(encode_record(b"a")) * 2
    assert writer.append(b"c") is not first
    await asyncio.sleep(0)


async def test_reader_follows_the_writer_over_segments(writer):
    payloads = await fill(writer, 100)
    reader = reader_of(writer)
    assert len(list(writer.path.glob("*.segment"))) > 3
    read, position = read_all(reader, 0)
    assert (read, position) == (payloads, writer.position)
    assert reader.read(position, count_max=10).payloads == []
    more = await fill(writer, 5)
    assert read_all(reader, position)[0] == more
    reader.close()


async def test_acknowledged_segments_are_dropped_and_count_no_longer(writer):
    await fill(writer, 100)
    held = writer.bytes_held
    writer.acknowledge(writer.position // 2)
    assert writer.bytes_held < held
    assert not (writer.path / segment_name(1)).exists()
    writer.acknowledge(writer.position)
    assert len(list(writer.path.glob("*.segment"))) == 1


async def test_room_is_reserved_for_requests_in_flight_and_taken_by_adopted_journals(writer):
    assert writer.has_room(200)
    assert not writer.has_room(300)
    writer.adopted_bytes = 1 << 19
    assert not writer.has_room(200)


async def test_empty_journal_is_removed_on_close(root):
    make(root).close()
    assert list(root.iterdir()) == []


# To the disk.


async def test_what_was_written_is_flushed_with_the_folders_that_name_it(root, files):
    writer = make(root, files=files, sync_interval_seconds=0.001)
    await fill(writer, 40)
    segments = [segment_name(number) for number in range(1, writer.places()[-1].number + 1)]
    await writer.sync()
    assert files.named("sync") == segments
    assert set(files.named("sync_folder")) == {str(ID), root.name}
    files.calls.clear()
    await writer.sync()
    assert files.named("sync") == files.named("sync_folder") == []
    await writer.append(b"more")
    await writer.sync()
    assert files.named("sync") == segments[-1:]
    writer.acknowledge(writer.position)
    await writer.sync()
    assert files.named("sync_folder") == [str(ID)]
    writer.close()


async def test_the_background_flushes_by_itself(root, files):
    writer = make(root, files=files, sync_interval_seconds=0.001)
    tending = asyncio.create_task(writer.tend_forever())
    await writer.append(b"a")
    async with asyncio.timeout(60):
        while segment_name(1) not in files.named("sync"):
            await asyncio.sleep(0.001)
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    writer.close()


def test_the_real_file_system_is_asked_for_each_call(tmp_path, monkeypatch):
    asked = []
    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, lambda _descriptor, name=name: asked.append(name))
    files = OsFiles()
    descriptor = files.create(tmp_path / "a")
    files.sync(descriptor)
    files.sync_folder(tmp_path)
    os.close(descriptor)
    assert asked == ["fdatasync", "fsync"]


@pytest.mark.parametrize("call", ["sync", "sync_folder"])
async def test_a_flush_that_fails_blocks_until_a_new_segment_begins_and_ends_no_task(root, files, call):
    writer = make(root, files=files, sync_interval_seconds=0.001)
    tending = asyncio.create_task(writer.tend_forever())
    files.failing[call] = errno.EIO
    await writer.append(b"a")
    async with asyncio.timeout(60):
        while not writer.is_blocked:
            await asyncio.sleep(0.001)
    assert writer.sync_failures == 1
    assert not writer.has_room(1)
    files.failing.clear()
    assert writer.try_to_recover()
    await writer.append(b"b")
    assert not tending.done()
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert read_all(reader_of(writer), 0)[0] == [b"a", b"b"]
    writer.close()


# A full disk.


async def test_a_full_disk_refuses_and_heals_and_loses_nothing_that_was_told(writer, files, root):
    told = await fill(writer, 10)
    files.budget = 20
    with pytest.raises(JournalBroken):
        await writer.append(b"x" * 100)
    assert not writer.has_room(0)
    assert "space" in writer.blocked_by
    with pytest.raises(JournalBroken):
        await writer.append(b"not even a small one")
    assert not writer.try_to_recover()
    files.budget = PROBE_BYTES + 10_000
    assert writer.try_to_recover()
    assert writer.has_room(1)
    told += await fill(writer, 10, b"after")
    assert read_all(reader_of(writer), 0)[0] == told
    writer.close()
    read, damage = read_adopted(root)
    assert read == told
    assert not damage
    assert quarantined(root) == []


async def test_a_full_disk_heals_by_itself_within_seconds(root, files, monkeypatch):
    monkeypatch.setattr("edge_proxy.usage.journal.writer.RECOVER_SECONDS", 0.01)
    writer = make(root, files=files)
    tending = asyncio.create_task(writer.tend_forever())
    files.budget = 0
    with pytest.raises(JournalBroken):
        await writer.append(b"x")
    files.budget = None
    async with asyncio.timeout(60):
        while not writer.has_room(1):
            await asyncio.sleep(0.001)
    await writer.append(b"y")
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert read_all(reader_of(writer), 0)[0] == [b"y"]
    writer.close()


async def test_a_partial_write_that_cannot_be_taken_back_is_not_read_after_all(writer, files, root):
    told = await fill(writer, 3)
    files.budget, files.failing["truncate"] = 150, errno.EIO
    refused = [writer.append(b"r" * 50) for _ in range(5)]
    with pytest.raises(JournalBroken):
        await refused[0]
    files.budget = None
    with pytest.raises(JournalBroken):
        await writer.append(b"not behind a failed write")
    assert writer.try_to_recover()
    told += await fill(writer, 3, b"after")
    assert read_all(reader_of(writer), 0)[0] == told
    writer.close()
    read, damage = read_adopted(root)
    assert read == told
    assert not damage
    assert damage.torn_bytes


@pytest.mark.parametrize("call", ["create", "write"])
async def test_a_segment_that_cannot_begin_resets_no_recorded_client_and_closes_no_strangers_file(root, files, call):
    writer = make(root, files=files)
    payload = b"p" * 500
    await writer.append(payload)
    if call == "create":
        files.failing["create"] = errno.ENOSPC
    else:
        # Enough for the record that fills the segment, not for the header of the next one.
        files.budget = len(encode_record(payload)) + 10
    await writer.append(payload)
    await writer.append(payload) if call == "create" else None
    stranger = os.open(root, os.O_RDONLY)
    assert not writer.is_blocked
    files.failing.clear()
    files.budget = None
    count = 0
    while len(writer.places()) == 1:
        await writer.append(payload)
        count += 1
    assert count <= 3
    writer.close()
    os.fstat(stranger)
    os.close(stranger)
    assert set(read_adopted(root)[0]) == {payload}


async def test_a_worker_that_starts_on_a_full_disk_refuses_at_once_and_heals(root, files):
    files.budget = 0
    writer = make(root, files=files)
    assert writer.is_blocked
    assert not writer.has_room(0)
    with pytest.raises(JournalBroken):
        await writer.append(b"x")
    assert not writer.try_to_recover()
    assert reader_of(writer).read(0, count_max=10).payloads == []
    files.budget = None
    assert writer.try_to_recover()
    await writer.append(b"y")
    assert adopt(root) == []
    assert read_all(reader_of(writer), 0)[0] == [b"y"]
    writer.close()


@pytest.mark.parametrize("call", ["create", "write", "rename", "make_folder", "allocate"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_whichever_call_fails_at_the_start_the_journal_heals(root, files, call, number):
    failing = errno.ENOSPC
    seen = 0
    real = files._note

    def note(name: str, what: str) -> None:
        nonlocal seen
        real(name, what)
        if name == call:
            seen += 1
            if seen == number:
                raise OSError(failing, "full")

    files._note = note
    writer = make(root, files=files)
    for _ in range(number):
        if writer.is_blocked:
            writer.try_to_recover()
    with contextlib.suppress(JournalBroken):
        await writer.append(b"x")
    if writer.is_blocked:
        assert writer.try_to_recover()
    await writer.append(b"y")
    assert read_all(reader_of(writer), 0)[0][-1] == b"y"
    writer.acknowledge(writer.position)
    writer.close()
    assert [path for path in root.iterdir() if not path.name.startswith(".")] == []


async def test_noting_a_position_on_a_full_disk_still_frees_what_was_sent(writer, files):
    await fill(writer, 100)
    files.failing["overwrite"] = errno.ENOSPC
    writer.acknowledge(writer.position)
    assert len(list(writer.path.glob("*.segment"))) == 1


# Adoption.


async def test_held_journal_is_not_adopted_and_a_left_one_is_read_from_where_it_was_acknowledged(writer, root):
    payloads = await fill(writer, 40)
    batch = reader_of(writer).read(0, count_max=30)
    writer.acknowledge(batch.next_position)
    assert adopt(root) == []
    writer.close()
    (journal,) = adopt(root)
    assert adopt(root) == []
    read, position = read_all(journal.reader, journal.position)
    assert read == payloads[30:]
    journal.acknowledge(position)
    journal.finish()
    assert list(root.iterdir()) == []


async def test_lost_acknowledgement_starts_at_the_first_segment_that_is_there(writer, root):
    payloads = await fill(writer, 100)
    writer.acknowledge(writer.position // 2)
    writer.close()
    (writer.path / "acknowledged").unlink()
    read, damage = read_adopted(root)
    assert read
    assert read == payloads[-len(read) :]
    assert not damage


async def test_an_adopted_journal_frees_what_is_sent_and_weighs_what_is_left(writer, root):
    await fill(writer, 100)
    writer.close()
    (journal,) = adopt(root)
    assert journal.bytes_held == writer.position
    batch = journal.reader.read(0, count_max=60)
    journal.acknowledge(batch.next_position)
    assert journal.bytes_held == writer.position - batch.next_position
    assert not (writer.path / segment_name(1)).exists()
    journal.let_go()
    (again,) = adopt(root)
    assert again.position == batch.next_position
    again.let_go()


async def test_a_journal_is_never_removed_before_all_of_it_was_read(writer, root):
    await fill(writer, 100)
    writer.close()
    (journal,) = adopt(root)
    with pytest.raises(NotRead):
        journal.finish()
    journal.let_go()
    assert len(list(writer.path.glob("*.segment"))) > 3


async def test_a_lost_lock_file_hides_no_journal(writer, root):
    payloads = await fill(writer, 10)
    writer.close()
    (writer.path / "lock").unlink()
    assert read_adopted(root)[0] == payloads


async def test_corrupt_record_is_reported_quarantined_and_the_rest_is_read(writer, root):
    payloads = await fill(writer, 100)
    writer.close()
    path = writer.path / segment_name(2)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 12] ^= 0xFF
    path.write_bytes(bytes(content))
    read, damage = read_adopted(root)
    assert len(read) == len(payloads) - 1
    assert set(read) < set(payloads)
    assert damage.corrupt_bytes == len(encode_record(payloads[0]))
    assert quarantined(root) == [segment_name(2)]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 6, 10, 24, 32, 40])
async def test_a_damaged_header_hides_no_record(writer, root, number, offset):
    payloads = await fill(writer, 60)
    writer.close()
    path = writer.path / segment_name(number)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(bytes(content))
    read, damage = read_adopted(root)
    assert read == payloads
    assert (damage.headers, damage.corrupt_bytes, damage.gap_bytes) == (1, 0, 0)
    assert quarantined(root) == [segment_name(number)]


async def test_a_missing_segment_is_a_gap_that_is_reported_and_what_follows_is_read(writer, root):
    payloads = await fill(writer, 100)
    places = writer.places()
    writer.close()
    (writer.path / segment_name(2)).unlink()
    read, damage = read_adopted(root)
    record = len(encode_record(payloads[0]))
    first, second = places[0].end // record, places[1].end // record
    assert read == payloads[:first] + payloads[second:]
    assert damage.gap_bytes == places[1].end - places[1].base


async def test_missing_first_segments_that_were_not_acknowledged_are_a_gap(writer, root):
    await fill(writer, 100)
    places = writer.places()
    writer.close()
    (writer.path / segment_name(1)).unlink()
    assert read_adopted(root)[1].gap_bytes == places[0].end


async def test_a_segment_of_another_journal_is_noticed_by_its_header(writer, root):
    mine = await fill(writer, 30)
    other = make(root, UUID(int=2))
    theirs = await fill(other, 3, b"other")
    foreign = (other.path / segment_name(1)).read_bytes()
    other.acknowledge(other.position)
    other.close()
    writer.close()
    number = len(list(writer.path.glob("*.segment"))) + 1
    (writer.path / segment_name(number)).write_bytes(foreign)
    read, damage = read_adopted(root)
    assert read == mine + theirs
    assert damage.headers == 1
    assert quarantined(root) == [segment_name(number)]


async def test_a_file_that_is_no_segment_is_put_away_and_not_deleted(writer, root):
    await fill(writer, 3)
    writer.close()
    (writer.path / "0000000000000001.segment.bak").write_bytes(b"somebody's copy")
    read_adopted(root)
    assert quarantined(root) == ["0000000000000001.segment.bak"]


async def test_a_journal_that_cannot_be_removed_stays_held_until_it_can_be(writer, root, monkeypatch):
    await fill(writer, 30)
    writer.close()
    files = FaultyFiles()
    (journal,) = adopt(root, files)
    _, position = read_all(journal.reader, journal.position)
    files.failing["unlink"] = errno.EROFS
    journal.acknowledge(position)
    with pytest.raises(OSError, match="unlink"):
        journal.finish()
    assert adopt(root) == []
    files.failing.clear()
    journal.finish()
    assert list(root.iterdir()) == []


async def test_damage_is_counted_once_however_often_it_is_read(writer):
    await fill(writer, 100)
    path = writer.path / segment_name(2)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 12] ^= 0xFF
    path.write_bytes(bytes(content))
    reader = reader_of(writer)
    for _ in range(3):
        read_all(reader, 0)
    assert writer.damage.corrupt_bytes == len(encode_record(b"event-00000" * 5))
    writer.acknowledge(writer.position)
    assert quarantined(writer.path.parent) == [segment_name(2)]
