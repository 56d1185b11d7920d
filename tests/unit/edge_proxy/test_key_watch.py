"""A stream that ends, fails or falls silent is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import KeyCache
from edge_proxy.keys.watch import KeyWatch
from mesh.rpc import stream_watch

SNAPSHOT = auth.WatchKeysResponse(snapshot_complete=True)
HEARTBEAT = auth.WatchKeysResponse()


class Streams:
    """Streams that send what they are given and then hang."""

    def __init__(self, *messages: auth.WatchKeysResponse) -> None:
        self.messages = messages
        self.opened = 0
        self.left = 0

    async def open(self) -> AsyncIterator[auth.WatchKeysResponse]:
        self.opened += 1
        for message in self.messages:
            yield message
        await asyncio.Event().wait()

    async def leave(self) -> None:
        self.left += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_watch, "SILENCE_SECONDS_MAX", 0.05)
    monkeypatch.setattr(stream_watch, "BACKOFF_SECONDS_MIN", 0.001)


async def test_what_imported_keys_begin_with_is_held_as_it_was_said_last() -> None:
    said = [auth.ImportedPrefixes(prefixes=prefixes) for prefixes in (["acme_"], ["acme_", "beta_"], ["beta_"])]
    streams = Streams(
        auth.WatchKeysResponse(imported_prefixes=said[0], snapshot_complete=True),
        *(auth.WatchKeysResponse(imported_prefixes=each) for each in said[1:]),
        HEARTBEAT,
    )
    cache = KeyCache()
    watching = asyncio.create_task(KeyWatch(cache, streams.open, streams.leave).run())
    await until(lambda: cache.prefixes.listed == ("beta_",))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("messages", [(), (SNAPSHOT,)])
async def test_a_silent_stream_is_left_with_its_connection_and_opened_anew(
    messages: tuple[auth.WatchKeysResponse, ...],
) -> None:
    streams = Streams(*messages)
    watch = KeyWatch(KeyCache(), streams.open, streams.leave)
    running = asyncio.create_task(watch.run())
    await until(lambda: streams.opened > 2)
    assert streams.left >= 2
    assert watch.reason.startswith("silent")
    running.cancel()


async def test_a_stream_that_shows_signs_of_life_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_watch, "SILENCE_SECONDS_MAX", 5.0)
    sent = 0

    async def beat() -> AsyncIterator[auth.WatchKeysResponse]:
        nonlocal sent
        yield SNAPSHOT
        while True:
            await asyncio.sleep(0)
            sent += 1
            yield HEARTBEAT

    streams, cache = Streams(), KeyCache()
    watch = KeyWatch(cache, beat, streams.leave)
    running = asyncio.create_task(watch.run())
    await until(lambda: sent > 100)
    assert watch.is_connected
    assert (streams.left, cache.snapshots, cache.changes) == (0, 1, 1)
    running.cancel()
