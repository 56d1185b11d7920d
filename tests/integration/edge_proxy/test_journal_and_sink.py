from __future__ import annotations

import asyncio
import errno
import json
import os

from edge_proxy.usage.journal.format import HEADER_BYTES, segment_name


async def test_answer_is_held_back_until_its_event_is_written(edge, monkeypatch):
    written = asyncio.Event()
    real = edge.worker._journal._flush
    loop = asyncio.get_running_loop()

    def late() -> None:
        loop.call_later(0.2, lambda: (real(), written.set()))

    monkeypatch.setattr(edge.worker._journal, "_flush", late)
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        await reader.readuntil(b"hello")
        assert written.is_set()


async def test_events_wait_while_metering_is_down_and_are_counted_once(edge):
    await edge.request("/pass")
    await edge.events(1)
    await edge.backend.stop()
    for _ in range(20):
        assert (await edge.request("/pass")).status == 200
    await edge.until(lambda: any(reason.startswith("metering") for reason in edge.worker.degraded()))
    assert edge.worker._sender.lag_bytes > 0
    await edge.backend.start()
    assert len(await edge.events(21)) == 21
    await edge.until(lambda: edge.worker._sender.lag_bytes == 0)


async def test_segments_are_dropped_once_acknowledged(surroundings):
    edge = surroundings
    edge.changes |= {"edge_journal_segment_bytes_max": 1 << 14, "edge_journal_bytes_max": 1 << 20}
    await edge.start()
    await edge.healthy()
    for _ in range(20):
        await asyncio.gather(*(edge.request("/x") for _ in range(20)))
    await edge.events(400)
    await edge.until(lambda: edge.worker._sender.lag_bytes == 0)
    segments = list(edge.worker._journal.path.glob("*.segment"))
    last = edge.worker._journal.places()[-1].number
    assert [path.name for path in segments] == [segment_name(last)]
    assert last > 1
    await edge.stop()


async def test_full_journal_refuses_requests_rather_than_losing_events(surroundings):
    edge = surroundings
    edge.changes |= {"edge_journal_segment_bytes_max": 1 << 14, "edge_journal_bytes_max": 1 << 16}
    edge.backend.metering.fail = True
    await edge.start()
    await edge.until(lambda: edge.worker._limiter.is_healthy and edge.worker._watch.is_connected)
    served = 0
    while (got := await edge.request("/x")).status == 200:
        served += 1
        assert served < 1_000
    assert json.loads(got.body)["type"] == "/problems/journal-full"
    assert (await edge.request("/health/ready", key="")).status == 503
    edge.backend.metering.fail = False
    assert len(await edge.events(served)) == served
    await edge.until(edge.worker.is_ready)
    assert (await edge.request("/x")).status == 200
    await edge.stop()


async def leave_journal(edge):
    """Leave a journal with five events, as after a SIGKILL: nothing is flushed, the kernel lets go of the lock."""
    edge.backend.metering.fail = True
    await edge.start()
    await edge.until(lambda: edge.worker._limiter.is_healthy and edge.worker._watch.is_connected)
    for _ in range(5):
        assert (await edge.request("/x")).status == 200
    left = edge.worker._journal.path
    edge.worker._sender.flush = lambda _seconds: asyncio.sleep(0)
    await edge.stop()
    return left


async def test_what_a_dead_worker_left_is_adopted_and_sent(surroundings):
    edge = surroundings
    left = await leave_journal(edge)
    segment = left / segment_name(1)
    segment.write_bytes(segment.read_bytes() + b"\x40\x00\x00\x00torn")
    edge.backend.metering.fail = False
    await edge.start()
    assert len(await edge.events(5)) == 5
    await edge.until(lambda: not left.exists())
    assert edge.worker._sender.adopted == 1
    await edge.stop()


async def test_full_disk_resets_what_it_cost_refuses_the_rest_at_once_and_heals_by_itself(edge, monkeypatch):
    assert (await edge.request("/x")).status == 200
    real, target = os.write, edge.worker._journal._segment

    def full(descriptor: int, data: bytes) -> int:
        if descriptor == target:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    def no_space(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    async with edge.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\n\r\n".encode())
        try:
            received = await reader.read()
        except ConnectionResetError:
            received = b""
    assert received == b""
    health = await edge.request("/health/ready", key="")
    assert health.status == 503
    assert "No space left" in json.loads(health.body)["degraded"][0]
    refused = await edge.request("/x")
    assert (refused.status, json.loads(refused.body)["type"]) == (503, "/problems/journal-full")
    monkeypatch.undo()
    await edge.until(edge.worker.is_ready)
    assert (await edge.request("/x")).status == 200
    assert len(await edge.events(2)) == 2
    assert edge.worker.degraded() == []


async def test_damage_in_a_left_journal_degrades_health_and_is_counted(surroundings):
    edge = surroundings
    left = await leave_journal(edge)
    segment = left / segment_name(1)
    content = bytearray(segment.read_bytes())
    content[HEADER_BYTES + 20] ^= 1
    segment.write_bytes(content)
    edge.backend.metering.fail = False
    await edge.start()
    assert len(await edge.events(4)) == 4
    await edge.until(lambda: not left.exists())
    await edge.healthy_but("journal: some of it could not be read")
    edge.worker.report()
    assert edge.worker.metrics.counters["journal_corrupt_bytes"] > 50
    assert edge.worker.metrics.gauges["journal_quarantined_files"] == 1
    await edge.stop()


async def test_refused_requests_with_a_valid_key_are_events_and_others_are_only_counted(edge):
    await edge.request("/x", key="")
    await edge.request("/scoped")
    (event,) = await edge.events(1)
    assert (event.status, event.route_id) == (403, "scoped")
    assert edge.worker.metrics.problems["key-missing"] == 1
