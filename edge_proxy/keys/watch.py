"""Follows `auth.WatchKeys`: a snapshot, then every change within a second of its commit (`mesh.rpc.stream_watch`).

While the stream is away, grants live on as `cache` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable

import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import REFRESH_AFTER_SECONDS, KeyCache
from mesh.rpc.stream_watch import Reconnect, StreamWatch

log = structlog.get_logger()

OpenWatch = Callable[[], AsyncIterable[auth.WatchKeysResponse]]


class KeyWatch(StreamWatch[auth.WatchKeysResponse]):
    """Keeps a cache in step with `auth`.

    Args:
        cache: What to keep.
        open_watch: Opens the stream.
        reconnect: Leaves the connection behind that streams were opened on; may take a while.
    """

    def __init__(self, cache: KeyCache, open_watch: OpenWatch, reconnect: Reconnect) -> None:
        super().__init__("keys", open_watch, begin=cache.begin_snapshot, receive=self._take_in, reconnect=reconnect)
        self._cache = cache

    def _take_in(self, message: auth.WatchKeysResponse) -> bool:
        if message.HasField("imported_prefixes"):
            self._cache.put_prefixes(message.imported_prefixes.prefixes)
        self._cache.push(message.grants, fresh_until=asyncio.get_running_loop().time() + REFRESH_AFTER_SECONDS)
        if message.snapshot_complete:
            self._cache.end_snapshot()
            log.info("keys_loaded", keys=len(self._cache))
        return message.snapshot_complete
