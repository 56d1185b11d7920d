"""Tells whoever watches about changes within a second of the commit: what every watch of auth has in common.

A trigger sends a NOTIFY in the transaction of the change. One listener per process collects what was named, reads the
new state and hands it to every stream. Every role of the database can send such a notice, so it is a hint and no more:
what a change says comes from the tables, and a notice that names nothing of ours is left out.

Nothing is lost between snapshot and push: a stream subscribes first and takes its snapshot afterwards, so a change is
either in the snapshot or behind it in the stream's queue, or in both. A change that was read just before a snapshot may
be sent just after it and be older, so whoever watches needs a version to tell.

A stream that has nothing to say sends an empty message every `HEARTBEAT_SECONDS`, also while its snapshot is read.
Whoever hears nothing for a few of them knows that this process hangs or that the line is cut.

Nothing grows without bound: a stream that does not keep up is closed and comes back for a new snapshot, and so are all
streams when the listener's connection is lost or more changes at once than are remembered (`mesh.database.follow`).
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import Counter, Gauge

from mesh.database.pools import Database
from mesh.rpc.errors import RpcError

CHANGES_QUEUED_PER_STREAM_MAX: Final = 1_000
CHANGES_PER_MESSAGE_MAX: Final = 1_000
HEARTBEAT_SECONDS: Final = 1.0

_STREAMS: Final = Gauge("tollway_auth_watch_streams", "Open streams of a watch", ["channel"])
_PUSHED: Final = Counter("tollway_auth_watch_changes_total", "Changes read for the streams of a watch", ["channel"])
_CLOSED: Final = Counter("tollway_auth_watch_streams_closed_total", "Streams that auth closed", ["channel", "cause"])

Change = TypeVar("Change")


class ChangeStream(Generic[Change]):
    """The changes that one watcher has yet to be sent.

    Args:
        channel: For the metrics.
        ended: What the watcher is told when the stream ends.
    """

    def __init__(self, channel: str, ended: type[RpcError]) -> None:
        self._channel = channel
        self._ended = ended
        self._queue: asyncio.Queue[tuple[Change, ...]] = asyncio.Queue(CHANGES_QUEUED_PER_STREAM_MAX)
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Tell whether the stream has ended."""
        return self._closed

    def put(self, changes: tuple[Change, ...]) -> None:
        """Queue a message of changes; a stream without room is closed."""
        try:
            self._queue.put_nowait(changes)
        except asyncio.QueueFull:
            self.close("slow")

    def close(self, cause: str) -> None:
        """End the stream: its watcher has to start again."""
        if self._closed:
            return
        self._closed = True
        _CLOSED.labels(self._channel, cause).inc()
        with contextlib.suppress(asyncio.QueueFull):
            # Wakes a reader that waits; one that has something to read looks at the flag by itself.
            self._queue.put_nowait(())

    async def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        """Yield changes as they come, and nothing (an empty tuple) when a heartbeat is due.

        Raises:
            RpcError: The stream was closed; of the class that the constructor was given.
        """
        while not self._closed:
            changes: tuple[Change, ...] = ()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    changes = await self._queue.get()
            if self._closed:
                break
            yield changes
        raise self._ended


class ChangeStreams(ABC, Generic[Change]):
    """Listens for changes of one kind and hands them out. `run` it in the background.

    Args:
        db: Where they are; also listened on.
        channel: The channel of the notices.
        ended: What watchers are told when there is no listener, or when their stream ends.
    """

    def __init__(self, db: Database, *, channel: str, ended: type[RpcError]) -> None:
        self._db = db
        self._channel = channel
        self._ended = ended
        self._streams: set[ChangeStream[Change]] = set()
        self._listening = False

    @abstractmethod
    async def read_changes(self, notices: frozenset[str]) -> Sequence[Change]:
        """Read what notices name; one that names nothing of ours is left out."""

    @abstractmethod
    async def take_snapshot(self, size_max: int) -> Iterator[tuple[Change, ...]]:
        """Read everything that a watcher has to know at first, in parts that are each one message.

        Args:
            size_max: How much the watcher asked for at most; 0 where it named nothing.
        """

    @property
    def is_listening(self) -> bool:
        """Tell whether changes are heard."""
        return self._listening

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen, and listen again after a loss, until told to stop."""
        following = asyncio.create_task(
            self._db.follow(self._channel, changed=self._push, read_all=self._begin, lost=self._note_loss)
        )
        try:
            await stopping.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            self._close_all("stopping")

    async def watch(self, *, size_max: int = 0) -> AsyncIterator[tuple[tuple[Change, ...], bool]]:
        """Yield (changes, whether the snapshot ends here): first the snapshot, then changes for ever, and heartbeats.

        Raises:
            RpcError: There is no listener, or this stream did not keep up.
        """
        if not self._listening:
            raise self._ended("the listener is not connected")
        stream = ChangeStream[Change](self._channel, self._ended)
        self._streams.add(stream)
        self._count_streams()
        snapshot = asyncio.ensure_future(self.take_snapshot(size_max))
        try:
            while not (await asyncio.wait({snapshot}, timeout=HEARTBEAT_SECONDS))[0]:
                if stream.is_closed:
                    raise self._ended("closed while the snapshot was read")
                yield (), False
            for part in snapshot.result():
                yield part, False
            yield (), True
            async for changes in stream.changes():
                yield changes, False
        finally:
            snapshot.cancel()
            self._streams.discard(stream)
            self._count_streams()

    async def _begin(self) -> None:
        """Start anew after a gap: changes may have been missed, so every watcher has to take a new snapshot."""
        self._close_all("gap")
        self._listening = True

    def _note_loss(self) -> None:
        self._listening = False
        self._close_all("listener_lost")

    async def _push(self, notices: frozenset[str]) -> None:
        if not self._streams:
            return
        changes = await self.read_changes(notices)
        _PUSHED.labels(self._channel).inc(len(changes))
        for part in messages(changes):
            for stream in self._streams:
                stream.put(part)

    def _close_all(self, cause: str) -> None:
        for stream in self._streams:
            stream.close(cause)

    def _count_streams(self) -> None:
        _STREAMS.labels(self._channel).set(len(self._streams))


def messages(changes: Sequence[Change]) -> list[tuple[Change, ...]]:
    """Cut changes into messages of a bounded size."""
    step = CHANGES_PER_MESSAGE_MAX
    return [tuple(changes[at : at + step]) for at in range(0, len(changes), step)]
