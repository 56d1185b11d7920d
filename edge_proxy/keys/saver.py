"""Writes what the cache learns to the disk: changes at once, a whole snapshot now and then.

Every worker writes the changes that it learns, so that one worker that dies takes none of them along. One worker
writes the snapshots. Writing happens in a thread, because an fsync may take as long as the disk likes; the cache has
the change already. What cannot be written is kept (bounded, the newest per digest), tried again every second and told
in health.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from edge_proxy.keys.cache import KeyCache
from edge_proxy.keys.files import KeyFiles

SNAPSHOT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 1.0

log = structlog.get_logger()


class KeySaver:
    """Keeps the files in step with a cache.

    Args:
        cache: What to save.
        files: Where.
        writes_snapshots: Whether this worker is the one that does.
    """

    def __init__(self, cache: KeyCache, files: KeyFiles, *, writes_snapshots: bool) -> None:
        self._cache = cache
        self._files = files
        self._writes_snapshots = writes_snapshots
        self._changes_in_snapshot = 0
        self.is_writing = True
        """False while the last attempt to write has failed."""

    async def run(self) -> None:
        """Save until cancelled."""
        loop = asyncio.get_running_loop()
        snapshot_due = loop.time() + SNAPSHOT_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, snapshot_due - loop.time())):
                    await self._cache.save_needed.wait()
            await self.save_changes()
            if loop.time() >= snapshot_due:
                await self.save_snapshot()
                snapshot_due = loop.time() + SNAPSHOT_SECONDS
            if not self.is_writing:
                await asyncio.sleep(RETRY_SECONDS)
                self._cache.save_needed.set()

    async def save_changes(self) -> None:
        """Write what waits in the cache."""
        # A snapshot of what is not loaded yet would pass for a whole one.
        if self._cache.snapshot_wanted and self._cache.is_loaded:
            if not await self._replace():
                return
            self._cache.snapshot_wanted = False
        changes = self._cache.take_unsaved()
        if not changes:
            return
        try:
            await asyncio.to_thread(self._files.append, changes)
        except OSError as error:
            self._cache.give_unsaved_back(changes)
            self._failed("key_changes_not_written", error)
        else:
            self.is_writing = True

    async def save_snapshot(self) -> None:
        """Write a snapshot if this worker does so and there is anything new."""
        if self._writes_snapshots and self._cache.is_loaded and self._cache.changes != self._changes_in_snapshot:
            await self._replace()

    async def _replace(self) -> bool:
        changes = self._cache.changes
        try:
            await asyncio.to_thread(self._files.replace, self._cache.messages(), self._cache.prefixes.listed)
        except OSError as error:
            self._failed("key_snapshot_not_written", error)
            return False
        self._changes_in_snapshot = changes
        self.is_writing = True
        return True

    def _failed(self, event: str, error: OSError) -> None:
        if self.is_writing:
            log.error(event, error=str(error))
        self.is_writing = False
