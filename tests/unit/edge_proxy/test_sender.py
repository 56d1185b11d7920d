from __future__ import annotations

import asyncio
import errno
import os
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_proxy.usage.journal.writer import JournalWriter
from edge_proxy.usage.sink import sender as sender_module
from edge_proxy.usage.sink.base import SinkUnavailable
from edge_proxy.usage.sink.sender import Sender


class MemorySink:
    """Commits batches, fails as it is told, and may commit although it says that it failed."""

    def __init__(self, failures: list[bool] | None = None) -> None:
        self.failures = failures or []
        self.received: list[bytes] = []
        self.is_available = True

    async def send(self, batch) -> None:
        await asyncio.sleep(0)
        if self.failures and self.failures.pop(0):
            self.received += batch.payloads[: len(batch.payloads) // 2]
            raise SinkUnavailable
        self.received += batch.payloads

    async def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(sender_module, "LINGER_SECONDS", 0.001)
    monkeypatch.setattr(sender_module, "BACKOFF_SECONDS_MIN", 0.001)
    monkeypatch.setattr(sender_module, "BACKOFF_SECONDS_MAX", 0.001)
    monkeypatch.setattr(sender_module, "BATCH_EVENTS_MAX", 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.lists(st.booleans(), max_size=12))
async def test_every_event_reaches_the_sink_whatever_fails(tmp_path_factory, count, failures):
    tmp_path = tmp_path_factory.mktemp("journals")
    writer = JournalWriter(tmp_path, UUID(int=1), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    sink = MemorySink(failures)
    sender = Sender(tmp_path, writer, sink)
    task = asyncio.create_task(sender.run())
    payloads = [b"event-%04d" % number for number in range(count)]
    for payload in payloads:
        await writer.append(payload)
    assert await sender.flush(5.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(sink.received) == set(payloads)
    if not sender.failures:
        assert sink.received == payloads
    writer.close()
    assert list(tmp_path.iterdir()) == []


async def test_left_journals_are_sent_to_their_end_and_removed(tmp_path):
    left = JournalWriter(tmp_path, UUID(int=1), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    for number in range(30):
        await left.append(b"left-%04d" % number)
    left.close()
    own = JournalWriter(tmp_path, UUID(int=2), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    sink = MemorySink([False, True, True])
    sender = Sender(tmp_path, own, sink)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(30):
        while left.path.exists():
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(set(sink.received)) == 30
    own.close()


async def test_what_was_adopted_takes_room_until_it_is_sent(tmp_path):
    left = JournalWriter(tmp_path, UUID(int=1), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    for number in range(30):
        await left.append(b"left-%04d" % number)
    left.close()
    own = JournalWriter(tmp_path, UUID(int=2), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    sink = MemorySink([True] * 10_000)
    sender = Sender(tmp_path, own, sink)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(60):
        while own.adopted_bytes != left.position:
            await asyncio.sleep(0.001)
        sink.failures.clear()
        while own.adopted_bytes:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    own.close()


async def test_two_adopters_at_once_send_everything_and_leave_nothing(tmp_path):
    for number in range(1, 6):
        left = JournalWriter(
            tmp_path, UUID(int=number), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0
        )
        for event in range(20):
            await left.append(b"left-%d-%04d" % (number, event))
        left.close()
    sink = MemorySink([False, True, False, True, True])
    owns = [
        JournalWriter(tmp_path, UUID(int=number), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
        for number in (11, 12)
    ]
    tasks = [asyncio.create_task(Sender(tmp_path, own, sink).run()) for own in owns]
    async with asyncio.timeout(60):
        while len(list(tmp_path.iterdir())) > 2:
            await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(set(sink.received)) == 100
    for own in owns:
        own.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_adopted", [False, True])
async def test_a_worker_out_of_descriptors_passes_over_no_event(tmp_path, monkeypatch, is_adopted):
    root = tmp_path / "journals"
    payloads = [b"event-%04d" % number for number in range(40)]
    left = JournalWriter(root, UUID(int=1), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    if is_adopted:
        for payload in payloads:
            await left.append(payload)
        left.close()
        writer = JournalWriter(root, UUID(int=2), bytes_max=1 << 20, segment_bytes_max=256, sync_interval_seconds=0)
    else:
        writer = left
    opened = []

    def scarce(path, *arguments, **named):
        if str(path).endswith(".segment"):
            opened.append(path)
            if len(opened) % 2:
                raise OSError(errno.EMFILE, "too many open files")
        return real_open(path, *arguments, **named)

    real_open = os.open
    if not is_adopted:
        for payload in payloads:
            await writer.append(payload)
    monkeypatch.setattr(os, "open", scarce)
    sink = MemorySink()
    sender = Sender(root, writer, sink)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(30):
        while len(set(sink.received)) < len(payloads):
            await asyncio.sleep(0)
    assert not sender.damage()
    assert not (tmp_path / "quarantine").exists()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    writer.close()
