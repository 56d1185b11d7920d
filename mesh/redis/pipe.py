"""Redis with a bound on how long anybody waits for it: one connection, any number of callers.

The connection is made again when it is lost. Until a new one has answered a PING, every call fails at once. That is the
circuit breaker: closed while there is a connection that answers, open otherwise, half open while one is tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import hiredis
import structlog
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from mesh.redis.source import CONNECT_TIMEOUT_SECONDS, Source
from mesh.redis.wire import Command, RedisUnavailable, Reply, Wire

TIMEOUT_SECONDS: Final = 0.05
RECONNECT_PAUSE_SECONDS_MIN: Final = 0.05
RECONNECT_PAUSE_SECONDS_MAX: Final = 1.0

_CONNECTED: Final = Gauge("tollway_redis_connected", "Connections that answer")
_FAILURES: Final = Counter("tollway_redis_failures_total", "Connections given up", ["reason"])

log = structlog.get_logger()


class RedisPipe(Protocol):
    """The way to Redis, be it one server or a cluster. `run` must run while it is used."""

    connected: asyncio.Event

    def call(self, commands: Sequence[Command], keys: Sequence[bytes] = ()) -> asyncio.Future[list[Reply]]:
        """Send commands in one write per node; the future holds one reply each. They are written at once.

        Args:
            commands: What to do.
            keys: A key of each command, which says where in a cluster it goes.

        Raises (from the future):
            RedisUnavailable: There is no connection, or no answer in time.
        """
        ...

    async def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            RedisUnavailable: There is none.
        """
        ...

    async def run(self) -> None:
        """Keep connections until cancelled."""
        ...


class SinglePipe:
    """One pipelined connection to one server.

    Args:
        source: Which server.
        timeout_seconds: How long any call may wait.
        greeting: Commands for every new connection, for example SCRIPT LOAD.
    """

    def __init__(
        self,
        source: Source,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        greeting: Callable[[], Sequence[Command]] = tuple,
    ) -> None:
        self._source = source
        self._timeout_seconds = timeout_seconds
        self._greeting = greeting
        self._wire: Wire | None = None
        self.connected = asyncio.Event()

    def call(
        self,
        commands: Sequence[Command],
        keys: Sequence[bytes] = (),  # noqa: ARG002 - one server has all keys
    ) -> asyncio.Future[list[Reply]]:
        """Send commands in one write; see `RedisPipe`."""
        if self._wire is not None:
            return self._wire.call(commands)
        answered: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        answered.set_exception(RedisUnavailable("no connection"))
        return answered

    async def ping(self) -> None:
        """Ask for a sign of life; see `RedisPipe`."""
        await self.call([("PING",)])

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        pause_seconds = RECONNECT_PAUSE_SECONDS_MIN
        while True:
            try:
                async with asyncio.timeout(2 * CONNECT_TIMEOUT_SECONDS):
                    wire = await self._open()
            except (OSError, RedisError, RedisUnavailable) as error:
                log.warning("redis_connect_failed", detail=repr(error))
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RECONNECT_PAUSE_SECONDS_MAX)
                continue
            pause_seconds = RECONNECT_PAUSE_SECONDS_MIN
            await self._keep(wire)

    async def _keep(self, wire: Wire) -> None:
        self._wire = wire
        self.connected.set()
        _CONNECTED.inc()
        try:
            reason = await asyncio.shield(wire.lost)
            _FAILURES.labels(reason).inc()
            log.warning("redis_lost", reason=reason)
        finally:
            self._wire = None
            self.connected.clear()
            _CONNECTED.dec()
            wire.give_up("stopping")

    async def _open(self) -> Wire:
        connection = await self._source.connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            wire = Wire(self._timeout_seconds)
            wire.take_over(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        try:
            await self._greet(wire)
        except BaseException:
            wire.give_up("greeting")
            raise
        return wire

    async def _greet(self, wire: Wire) -> None:
        role, *replies = await wire.call([("ROLE",), ("PING",), *self._greeting()])
        if isinstance(role, list) and role[0] != b"master":
            raise RedisUnavailable("the server is a replica")
        # An account that may not ask for the role says so; the first write will tell.
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise RedisUnavailable(str(reply))
