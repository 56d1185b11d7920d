"""Redis with a bound on how long anybody waits for it.

`RedisPipe` is for the hot path: one connection, any number of callers. Calls of one turn of the event loop are
written together and answered in order, so many tasks share round trips without a pool, a lock or an await per command.
(redis-py's own client tries ten times by default, which turned one hung server into a stall of twenty seconds.)

**What fails and how.** If the oldest call has waited longer than the timeout, the connection is given up: every call on
it fails with `RedisUnavailable`, and until a new connection has answered a PING every further call fails at once. That
is the circuit breaker: closed while there is a connection that answers, open otherwise, half open while one is tried.
Whether a call that failed this way had an effect is not known. Two turns of the event loop are granted before a
timeout counts, so that a stall of this process is not taken for one of Redis.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

import hiredis
import structlog
from prometheus_client import Counter, Gauge
from redis.asyncio.connection import parse_url

TIMEOUT_SECONDS: Final = 0.05
CONNECT_TIMEOUT_SECONDS: Final = 1.0
RECONNECT_PAUSE_SECONDS_MIN: Final = 0.05
RECONNECT_PAUSE_SECONDS_MAX: Final = 1.0
CALLS_WAITING_MAX: Final = 1_000

Command: TypeAlias = tuple[Any, ...]
"""A command's words: bytes, str or int."""
Reply: TypeAlias = Any
"""What hiredis read: bytes, int, list, None or a `hiredis.ReplyError`."""

_CONNECTED: Final = Gauge("tollway_redis_connected", "Whether the pipe has a connection that answers")
_FAILURES: Final = Counter("tollway_redis_failures_total", "Connections given up", ["reason"])

log = structlog.get_logger()


class RedisUnavailable(Exception):
    """Redis did not answer in time, or there is no connection to it."""


@dataclass(slots=True)
class _Call:
    expected_count: int
    deadline: float
    answered: asyncio.Future[list[Reply]]
    replies: list[Reply] = field(default_factory=list)


class _Wire(asyncio.Protocol):
    """One connection: writes calls, matches replies to them in order, watches the oldest."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._calls: deque[_Call] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._outgoing: list[bytes] = []
        self.lost: asyncio.Future[str] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        # uvloop's transports derive from nothing of asyncio's, so there is nothing to check.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Give replies to the calls that wait for them."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.HiredisError:
            self.give_up("protocol")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason does not matter
        """Fail what waits."""
        self.give_up("closed")

    def call(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """Write commands and return the future of their replies."""
        answered: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._transport is None or self.lost.done() or len(self._calls) >= CALLS_WAITING_MAX:
            answered.set_exception(RedisUnavailable("no connection"))
            return answered
        deadline = self._loop.time() + self._timeout_seconds
        self._calls.append(_Call(expected_count=len(commands), deadline=deadline, answered=answered))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += [hiredis.pack_command(command) for command in commands]
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds, self._look, 0)
        return answered

    def give_up(self, reason: str) -> None:
        """Close the connection and fail every call on it."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        for call in self._calls:
            if not call.answered.done():
                call.answered.set_exception(RedisUnavailable(reason))
        self._calls.clear()

    def _flush(self) -> None:
        """Write what all tasks of this turn of the event loop have called, in one system call."""
        if self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _take(self, reply: Reply) -> None:
        call = self._calls[0]
        call.replies.append(reply)
        if len(call.replies) == call.expected_count:
            self._calls.popleft()
            if not call.answered.done():
                call.answered.set_result(call.replies)

    def _look(self, turns: int) -> None:
        """Give up if the oldest call is late; look again when the next one would be."""
        self._watch = None
        if not self._calls:
            return
        wait_seconds = self._calls[0].deadline - self._loop.time()
        if wait_seconds > 0:
            self._watch = self._loop.call_later(wait_seconds, self._look, 0)
        elif turns < 2:
            self._watch = self._loop.call_later(0, self._look, turns + 1)
        else:
            self.give_up("timeout")


class RedisPipe:
    """One pipelined connection that is made again when it is lost. `run` must run while it is used.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_seconds: How long any call may wait.
        greeting: Commands for every new connection, for example SCRIPT LOAD.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, greeting: Callable[[], Sequence[Command]] = tuple
    ) -> None:
        self._where: dict[str, Any] = dict(parse_url(url))
        self._secure = url.startswith("rediss://")
        self._timeout_seconds = timeout_seconds
        self._greeting = greeting
        self._wire: _Wire | None = None
        self.connected = asyncio.Event()

    def call(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """Send commands in one write; the future holds one reply each.

        Raises (from the future):
            RedisUnavailable: There is no connection, or no answer in time.
        """
        if self._wire is not None:
            return self._wire.call(commands)
        answered: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        answered.set_exception(RedisUnavailable("no connection"))
        return answered

    async def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            RedisUnavailable: There is none.
        """
        await self.call([("PING",)])

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        pause_seconds = RECONNECT_PAUSE_SECONDS_MIN
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    wire = await self._open()
            except (OSError, RedisUnavailable) as error:
                log.warning("redis_connect_failed", detail=repr(error))
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RECONNECT_PAUSE_SECONDS_MAX)
                continue
            pause_seconds = RECONNECT_PAUSE_SECONDS_MIN
            await self._keep(wire)

    async def _keep(self, wire: _Wire) -> None:
        self._wire = wire
        self.connected.set()
        _CONNECTED.set(1)
        try:
            reason = await asyncio.shield(wire.lost)
            _FAILURES.labels(reason).inc()
            log.warning("redis_lost", reason=reason)
        finally:
            self._wire = None
            self.connected.clear()
            _CONNECTED.set(0)
            wire.give_up("stopping")

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        where = self._where

        def make() -> _Wire:
            return _Wire(self._timeout_seconds)

        if "path" in where:
            _, wire = await loop.create_unix_connection(make, where["path"])
        else:
            secure = ssl.create_default_context() if self._secure else None
            _, wire = await loop.create_connection(
                make, where.get("host", "localhost"), where.get("port", 6379), ssl=secure
            )
        try:
            await self._greet(wire)
        except BaseException:
            wire.give_up("greeting")
            raise
        return wire

    async def _greet(self, wire: _Wire) -> None:
        commands: list[Command] = []
        if password := self._where.get("password"):
            user = self._where.get("username")
            commands.append(("AUTH", user, password) if user else ("AUTH", password))
        if number := self._where.get("db"):
            commands.append(("SELECT", number))
        for reply in await wire.call([*commands, ("PING",), *self._greeting()]):
            if isinstance(reply, hiredis.ReplyError):
                raise RedisUnavailable(str(reply))
