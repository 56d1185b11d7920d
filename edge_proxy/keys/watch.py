"""Follows `auth.WatchKeys`: a snapshot, then every change within a second of its commit.

A broken stream is opened again with backoff and jitter, and starts with a new snapshot, so that nothing that changed
in between is missed. Until it is back, grants live on as `cache` says.

`auth` says something at least once a second. A stream that is silent for `SILENCE_SECONDS_MAX` counts as broken: the
other side hangs, or the line swallows what is sent. Such a line may never come back, so its connection is left behind
and the next attempt opens a new one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final

import grpc.aio
import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import REFRESH_AFTER_SECONDS, KeyCache

BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0
SILENCE_SECONDS_MAX: Final = 3.0

log = structlog.get_logger()

OpenWatch = Callable[[], AsyncIterable[auth.WatchKeysResponse]]
Reconnect = Callable[[], Awaitable[None]]


class KeyWatch:
    """Keeps a cache in step with `auth`.

    Args:
        cache: What to keep.
        open_watch: Opens the stream.
        reconnect: Leaves the connection behind that streams were opened on; may take a while.
    """

    def __init__(self, cache: KeyCache, open_watch: OpenWatch, reconnect: Reconnect) -> None:
        self._cache = cache
        self._open_watch = open_watch
        self._reconnect = reconnect
        self._reconnecting: set[asyncio.Future[None]] = set()
        self.is_connected = False
        self.reason = "not connected yet"
        """Why it is not connected."""

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            try:
                await self._follow()
                self.reason = "the stream ended"
            except grpc.aio.AioRpcError as error:
                self.reason = error.code().name
            except TimeoutError:
                self.reason = f"silent for {SILENCE_SECONDS_MAX} s"
                self._leave_connection()
            if self.is_connected:
                backoff_seconds = BACKOFF_SECONDS_MIN
                log.warning("key_watch_lost", reason=self.reason)
            self.is_connected = False
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _follow(self) -> None:
        self._cache.begin_snapshot()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_SECONDS_MAX) as silence:
            async for message in self._open_watch():
                silence.reschedule(loop.time() + SILENCE_SECONDS_MAX)
                if message.HasField("imported_prefixes"):
                    self._cache.put_prefixes(message.imported_prefixes.prefixes)
                self._cache.push(message.grants, fresh_until=loop.time() + REFRESH_AFTER_SECONDS)
                if message.snapshot_complete:
                    self._cache.end_snapshot()
                    self.is_connected = True
                    log.info("keys_loaded", keys=len(self._cache))

    def _leave_connection(self) -> None:
        task = asyncio.ensure_future(self._reconnect())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)
