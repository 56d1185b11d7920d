"""A routes file is applied whole or not at all, and nobody who is on the way notices."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.edge_fakes import answer, content_length


@pytest.fixture
async def reloadable(surroundings, monkeypatch):
    monkeypatch.setenv("TOLLWAY_UPSTREAM_URL", surroundings.upstream.url)
    await surroundings.start()
    await surroundings.healthy()
    yield surroundings
    await surroundings.stop()


def renamed(edge, name):
    return edge.routes.replace("  demo:", f"  {name}:").replace("upstream: demo", f"upstream: {name}")


async def test_reloads_that_rename_the_upstream_fail_no_request_under_load(reloadable):
    edge, statuses, is_over = reloadable, [], asyncio.Event()

    async def slow_body(head, reader, writer):
        if length := content_length(head):
            await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await asyncio.sleep(0)
        writer.write(b"llo")
        return True

    edge.upstream.script = slow_body

    async def client(number):
        while not is_over.is_set():
            async with edge.connection() as (reader, writer):
                for _ in range(20):
                    head = f"POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {edge.key}\r\nContent-Length: 4\r\n\r\n"
                    writer.write(head.encode())
                    await asyncio.sleep(0)
                    writer.write(b"body")
                    answered = await reader.readuntil(b"hello")
                    statuses.append(int(answered[9:12]))

    clients = [asyncio.create_task(client(number)) for number in range(16)]
    path = edge.worker._settings.edge_config
    for number in range(20):
        before = len(statuses)
        path.write_text(renamed(edge, f"name{number}"))
        edge.worker.reload()
        await edge.until(lambda: len(statuses) > before + 50)  # noqa: B023 - awaited within the turn
    is_over.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert edge.worker.metrics.counters["reloads"] == 20
    # The pools of the nineteen tables before are gone with their last connection.
    await edge.until(lambda: len(edge.worker._sweep._origins) <= 1)


async def test_a_request_that_matched_the_old_table_is_finished_by_it(reloadable):
    edge = reloadable
    is_here, release = asyncio.Event(), asyncio.Event()

    async def slow(head, reader, writer):
        is_here.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        return True

    edge.upstream.script = slow
    asked = asyncio.create_task(edge.request("/x"))
    await is_here.wait()
    edge.worker._settings.edge_config.write_text(renamed(edge, "other"))
    edge.worker.reload()
    release.set()
    assert (await asked).body == b"hello"
    assert (await edge.request("/x")).body == b"hello"
    (first, second) = await edge.events(2)
    assert {first.status, second.status} == {200}


@pytest.mark.parametrize("url", ["http://ü.example", "http://a..b"])
async def test_an_impossible_upstream_is_refused_and_the_old_routes_go_on(reloadable, url):
    edge = reloadable
    edge.worker._settings.edge_config.write_text(edge.routes.replace("${TOLLWAY_UPSTREAM_URL}", url))
    edge.worker.reload()
    assert edge.worker.metrics.counters["reloads_refused"] == 1
    assert (await edge.request("/x")).body == b"hello"


async def test_ready_says_while_the_file_on_disk_is_not_the_one_in_force(reloadable):
    edge = reloadable

    async def degraded():
        return [r for r in json.loads((await edge.request("/health/ready")).body)["degraded"] if r.startswith("routes")]

    path = edge.worker._settings.edge_config
    assert await degraded() == []
    path.write_text("version: 2\n")
    edge.worker.reload()
    assert await degraded() == ["routes: the file on disk is not the one in force (changed or refused)"]
    path.write_text(edge.routes)
    edge.worker.reload()
    assert await degraded() == []
    path.write_text(edge.routes + "# changed by hand\n")
    await edge.until(edge.worker.degraded)
    path.unlink()
    await edge.until(lambda: "cannot be read" in str(edge.worker.degraded()))
    path.write_text(edge.routes)
    await edge.until(lambda: not edge.worker.degraded())


async def test_a_kept_connection_of_a_removed_upstream_is_closed(reloadable):
    edge = reloadable
    # Kept for longer than the test waits, so that nothing but the reload closes it.
    edge.routes = edge.routes.replace("connections_max: 100", "connections_max: 100, keep_alive_idle_seconds: 3600")
    edge.worker._settings.edge_config.write_text(edge.routes)
    edge.worker.reload()
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    await edge.request("/x")
    edge.worker._settings.edge_config.write_text(renamed(edge, "other"))
    edge.worker.reload()
    await edge.until(lambda: not edge.upstream._writers)
