"""Tells every watching edge about a changed API key within a second of the commit.

A trigger sends a NOTIFY in the transaction of the change. One listener per process collects what was named, reads the
new state in one query and hands the grants to every stream. Every role of the database can send such a notice, so it
is a hint and no more: what a grant says comes from the tables, and a notice that names nothing of ours is left out.

Nothing is lost between snapshot and push: a stream subscribes first and takes its snapshot afterwards, so a change is
either in the snapshot or behind it in the stream's queue, or in both. A grant that was read just before a snapshot may
be sent just after it and be older. Its version says so, and edges keep the grant with the higher version.

A stream that has nothing to say sends an empty message every `HEARTBEAT_SECONDS`, also while its snapshot is read. An
edge that hears nothing for a few of them knows that this process hangs or that the line is cut.

Nothing grows without bound: a stream that does not keep up is closed and comes back for a new snapshot, and so are all
streams when the listener's connection is lost or more keys change at once than are remembered (`mesh.database.follow`).
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
from services.auth import store
from services.auth.errors import KeyWatchUnavailable
from services.auth.model import KeyGrant

CHANNEL: Final = "auth_key_changes"
CHANGES_QUEUED_PER_STREAM_MAX: Final = 1_000
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

    @property
    def is_closed(self) -> bool:
        """Tell whether the stream has ended."""
        return self._closed

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
        self._listening = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen, and listen again after a loss, until told to stop."""
        following = asyncio.create_task(
            self._db.follow(CHANNEL, changed=self._push, read_all=self._begin, lost=self._note_loss)
        )
        try:
            await stopping.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            self._close_all("stopping")

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
                if stream.is_closed:
                    raise KeyWatchUnavailable("closed while the snapshot was read")
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
            return await store.keys.take_snapshot(
                tx,
                keys_max=min(keys_max or SNAPSHOT_KEYS_MAX, SNAPSHOT_KEYS_MAX),
                now=self._clock.now(),
                part_size=GRANTS_PER_MESSAGE_MAX,
            )

    async def _begin(self) -> None:
        """Start anew after a gap: changes may have been missed, so every edge has to take a new snapshot."""
        self._close_all("gap")
        self._listening = True

    def _note_loss(self) -> None:
        self._listening = False
        self._close_all("listener_lost")

    async def _push(self, notices: frozenset[str]) -> None:
        """Read what was named and hand it out; a notice that names nothing of ours is left out."""
        named = [each for each in map(_read_notice, notices) if each is not None]
        if not named or not self._streams:
            return
        keys = sorted(each for each in named if len(each) == 2)
        organizations = sorted({each[0] for each in named if len(each) == 1})
        async with self._db.system() as tx:
            grants = await store.keys.find_changed_grants(tx, keys) if keys else []
            grants += await store.keys.find_organizations_grants(tx, organizations) if organizations else []
        _PUSHED.inc(len(grants))
        for part in chunks(grants):
            for stream in self._streams:
                stream.put(part)

    def _close_all(self, cause: str) -> None:
        for stream in self._streams:
            stream.close(cause)


def _read_notice(payload: str) -> tuple[UUID, UUID] | tuple[UUID] | None:
    """Return which key or organization a notice names; any role can send one, so it may be nonsense."""
    try:
        match payload.split(" "):
            case ["key", organization_id, api_key_id]:
                return UUID(organization_id), UUID(api_key_id)
            case ["organization", organization_id]:
                return (UUID(organization_id),)
    except ValueError:
        return None
    return None


def chunks(grants: Sequence[KeyGrant]) -> list[tuple[KeyGrant, ...]]:
    """Cut grants into messages of a bounded size."""
    return [tuple(grants[at : at + GRANTS_PER_MESSAGE_MAX]) for at in range(0, len(grants), GRANTS_PER_MESSAGE_MAX)]
