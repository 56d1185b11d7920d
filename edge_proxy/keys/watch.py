"""Follows `auth.WatchKeys`: a snapshot, then every change within a second of its commit.

A broken stream is opened again with backoff and jitter, and starts with a new snapshot, so that nothing that changed
in between is missed. Until it is back, grants live on as `cache` says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc.aio
import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import REFRESH_AFTER_SECONDS, KeyCache

BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0

log = structlog.get_logger()

OpenWatch = Callable[[], AsyncIterator[auth.WatchKeysResponse]]


class KeyWatch:
    """Keeps a cache in step with `auth`.

    Args:
        cache: What to keep.
        open_watch: Opens the stream.
    """

    def __init__(self, cache: KeyCache, open_watch: OpenWatch) -> None:
        self._cache = cache
        self._open_watch = open_watch
        self.is_connected = False

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            try:
                await self._follow()
                reason = "ended"
            except grpc.aio.AioRpcError as error:
                reason = error.code().name
            if self.is_connected:
                backoff_seconds = BACKOFF_SECONDS_MIN
                log.warning("key_watch_lost", reason=reason)
            self.is_connected = False
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _follow(self) -> None:
        self._cache.begin_snapshot()
        loop = asyncio.get_running_loop()
        async for message in self._open_watch():
            self._cache.put(message.grants, fresh_until=loop.time() + REFRESH_AFTER_SECONDS)
            if message.snapshot_complete:
                self._cache.end_snapshot()
                self.is_connected = True
                log.info("keys_loaded", keys=len(self._cache))
