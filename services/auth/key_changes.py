"""Tells every watching edge about a changed API key within a second of the commit.

A trigger sends a NOTIFY in the transaction of the change. One listener per process collects what was named, reads the
new state in one query and hands the grants to every stream.

Nothing is lost between snapshot and push: a stream subscribes first and takes its snapshot afterwards, so a change is
either in the snapshot or behind it in the stream's queue, or in both. A grant that was read just before a snapshot may
be sent just after it and be older. Its version says so, and edges keep the grant with the higher version.

A stream that has nothing to say sends an empty message every `HEARTBEAT_SECONDS`, also while its snapshot is read. An
edge that hears nothing for a few of them knows that this process hangs or that the line is cut.

Nothing grows without bound: a stream that does not keep up is closed and comes back for a new snapshot, and so are all
streams when the listener's connection is lost or too many keys change at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from mesh.clock import Clock
from mesh.database.pools import Database
from mesh.rpc.errors import RpcError
from services.auth import store
from services.auth.errors import KeyWatchUnavailable
from services.auth.model import KeyGrant

CHANNEL: Final = "auth_key_changes"
CHANGES_QUEUED_PER_STREAM_MAX: Final = 1_000
PENDING_MAX: Final = 10_000
RECONNECT_SECONDS: Final = 0.5
HEARTBEAT_SECONDS: Final = 1.0
SNAPSHOT_KEYS_MAX: Final = 100_000
GRANTS_PER_MESSAGE_MAX: Final = 1_000

_STREAMS: Final = Gauge("tollway_auth_key_streams", "Edges that watch key changes")
_PUSHED: Final = Counter("tollway_auth_key_changes_pushed_total", "Changed grants read for the streams")
_CLOSED: Final = Counter("tollway_auth_key_streams_closed_total", "Streams that were closed", ["cause"])

log = structlog.get_logger()


class KeyStream:
    """The changes that one edge has yet to be sent."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[KeyGrant, ...]] = asyncio.Queue(CHANGES_QUEUED_PER_STREAM_MAX)
        self._closed = False

    def put(self, grants: tuple[KeyGrant, ...]) -> None:
        """Queue a change; a stream without room is closed."""
        try:
            self._queue.put_nowait(grants)
        except asyncio.QueueFull:
            self.close("slow")

    def close(self, cause: str) -> None:
        """End the stream: its edge has to start again."""
        if self._closed:
            return
        self._closed = True
        _CLOSED.labels(cause).inc()
        with contextlib.suppress(asyncio.QueueFull):
            # Wakes a reader that waits; one that has something to read looks at the flag by itself.
            self._queue.put_nowait(())

    async def changes(self) -> AsyncIterator[tuple[KeyGrant, ...]]:
        """Yield changes as they come, and nothing (an empty change) when a heartbeat is due.

        Raises:
            KeyWatchUnavailable: The stream was closed.
        """
        while not self._closed:
            change: tuple[KeyGrant, ...] = ()
            with contextlib.suppress(TimeoutError):
                change = await asyncio.wait_for(self._queue.get(), HEARTBEAT_SECONDS)
            if self._closed:
                break
            yield change
        raise KeyWatchUnavailable


class KeyChanges:
    """Listens for changed keys and hands them out. `run` it in the background.

    Args:
        db: Where keys are; also listened on.
        clock: For expiry in snapshots.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._streams: set[KeyStream] = set()
        self._pending_keys: set[tuple[UUID, UUID]] = set()
        self._pending_organizations: set[UUID] = set()
        self._woken = asyncio.Event()
        self._listening = False
        self._lost = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen, and listen again after a loss, until told to stop."""
        while not stopping.is_set():
            try:
                await self._listen_once(stopping)
            except (OSError, RpcError, RuntimeError) as error:
                log.warning("key_listener_lost", detail=repr(error))
            except Exception:  # the loop's edge: a listener that stays away would leave revoked keys working
                log.exception("key_listener_failed")
            self._close_all("stopping" if stopping.is_set() else "listener_lost")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), RECONNECT_SECONDS)

    async def watch(self, *, snapshot_keys_max: int = 0) -> AsyncIterator[tuple[tuple[KeyGrant, ...], bool]]:
        """Yield (grants, whether the snapshot ends here): first the snapshot, then changes for ever, and heartbeats.

        Raises:
            KeyWatchUnavailable: There is no listener, or this stream did not keep up.
        """
        if not self._listening:
            raise KeyWatchUnavailable("the listener is not connected")
        stream = KeyStream()
        self._streams.add(stream)
        _STREAMS.set(len(self._streams))
        snapshot = asyncio.ensure_future(self._take_snapshot(snapshot_keys_max))
        try:
            while not (await asyncio.wait({snapshot}, timeout=HEARTBEAT_SECONDS))[0]:
                yield (), False
            for part in snapshot.result():
                yield part, False
            yield (), True
            async for grants in stream.changes():
                yield grants, False
        finally:
            snapshot.cancel()
            self._streams.discard(stream)
            _STREAMS.set(len(self._streams))

    async def _take_snapshot(self, keys_max: int) -> Iterator[tuple[KeyGrant, ...]]:
        async with self._db.system() as tx:
            return await store.take_snapshot(
                tx,
                keys_max=min(keys_max or SNAPSHOT_KEYS_MAX, SNAPSHOT_KEYS_MAX),
                now=self._clock.now(),
                part_size=GRANTS_PER_MESSAGE_MAX,
            )

    async def _listen_once(self, stopping: asyncio.Event) -> None:
        self._lost = False
        stop_listening = await self._db.listen(CHANNEL, self._note, self._note_loss)
        self._listening = True
        watcher = asyncio.ensure_future(self._wake_when(stopping))
        try:
            while not (stopping.is_set() or self._lost):
                await self._woken.wait()
                self._woken.clear()
                await self._push_pending()
        finally:
            self._listening = False
            watcher.cancel()
            await stop_listening()

    async def _wake_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._woken.set()

    def _note(self, payload: str) -> None:
        match payload.split(" "):
            case ["key", organization_id, api_key_id]:
                self._pending_keys.add((UUID(organization_id), UUID(api_key_id)))
            case ["organization", organization_id]:
                self._pending_organizations.add(UUID(organization_id))
            case _:
                return
        self._woken.set()

    def _note_loss(self) -> None:
        self._lost = True
        self._woken.set()

    async def _push_pending(self) -> None:
        keys, self._pending_keys = self._pending_keys, set()
        organizations, self._pending_organizations = self._pending_organizations, set()
        if not (keys or organizations) or not self._streams:
            return
        if len(keys) > PENDING_MAX:
            self._close_all("too_many_changes")
            return
        async with self._db.system() as tx:
            grants = await store.find_changed_grants(tx, sorted(keys)) if keys else []
            grants += await store.find_organizations_grants(tx, sorted(organizations)) if organizations else []
        _PUSHED.inc(len(grants))
        for part in chunks(grants):
            for stream in self._streams:
                stream.put(part)

    def _close_all(self, cause: str) -> None:
        for stream in self._streams:
            stream.close(cause)
        self._pending_keys.clear()
        self._pending_organizations.clear()


def chunks(grants: Sequence[KeyGrant]) -> list[tuple[KeyGrant, ...]]:
    """Cut grants into messages of a bounded size."""
    return [tuple(grants[at : at + GRANTS_PER_MESSAGE_MAX]) for at in range(0, len(grants), GRANTS_PER_MESSAGE_MAX)]
