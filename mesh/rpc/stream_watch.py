"""Follows a stream that another process never ends: first a snapshot, then every change.

A broken stream is opened again with backoff and jitter, and starts with a new snapshot, so that nothing that changed
in between is missed. Until it is back, what is held stays in force.

The other side says something at least once a second. A stream that is silent for `SILENCE_SECONDS_MAX` counts as
broken: the other side hangs, or the line swallows what is sent. Such a line may never come back, so its connection is
left behind and the next attempt opens a new one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Final, Generic, TypeVar

import grpc.aio
import structlog

from mesh.rpc.errors import RpcError

BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0
SILENCE_SECONDS_MAX: Final = 3.0

Message = TypeVar("Message")
Reconnect = Callable[[], Awaitable[None]]

log = structlog.get_logger()


class WatchAway(Exception):
    """What another process says is not heard; the text says why."""


class StreamWatch(Generic[Message]):
    """Keeps something in step with another process.

    Args:
        name: What is watched, for the log.
        open_stream: Opens the stream.
        begin: Called before each stream.
        receive: Takes a message in and tells whether it completed the snapshot.
        reconnect: Leaves the connection behind that streams were opened on; may take a while.
        backoff_seconds_max: The longest pause between two attempts.
    """

    def __init__(
        self,
        name: str,
        open_stream: Callable[[], AsyncIterable[Message]],
        *,
        begin: Callable[[], None],
        receive: Callable[[Message], bool],
        reconnect: Reconnect | None = None,
        backoff_seconds_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self._name = name
        self._open_stream = open_stream
        self._begin = begin
        self._receive = receive
        self._reconnect = reconnect
        self._backoff_seconds_max = backoff_seconds_max
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
            except RpcError as error:
                self.reason = error.reason()
            except TimeoutError:
                self.reason = f"silent for {SILENCE_SECONDS_MAX} s"
                self._leave_connection()
            except Exception:  # the loop's edge: a watch that stays away would leave old state in force
                log.exception("watch_failed", watch=self._name)
                self.reason = "failed"
            if self.is_connected:
                backoff_seconds = BACKOFF_SECONDS_MIN
                log.warning("watch_lost", watch=self._name, reason=self.reason)
            self.is_connected = False
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff_seconds = min(backoff_seconds * 2, self._backoff_seconds_max)

    async def check(self) -> None:
        """Say as a health check whether changes are heard.

        Raises:
            WatchAway: They are not.
        """
        if not self.is_connected:
            raise WatchAway(f"{self._name}: {self.reason}")

    async def _follow(self) -> None:
        self._begin()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_SECONDS_MAX) as silence:
            async for message in self._open_stream():
                silence.reschedule(loop.time() + SILENCE_SECONDS_MAX)
                if self._receive(message):
                    self.is_connected = True
                    log.info("watch_connected", watch=self._name)

    def _leave_connection(self) -> None:
        if self._reconnect is None:
            return
        task = asyncio.ensure_future(self._reconnect())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)
