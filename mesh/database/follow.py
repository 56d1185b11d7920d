"""Follows a channel of NOTIFY: the one loop that every listener runs.

A notice says only that something has changed, and where to look; what has changed is read from the tables. So a notice
may be lost, come twice or be made up (PostgreSQL lets every role notify on every channel), and nothing becomes wrong.

**Gaps.** Once listening has begun, `read_all` is called, because there may have been changes before; and so again after
every new connection, and when too many notices came to remember them all. Between those, `changed` gets the payloads
that came, each once however often it came.

**Bounds.** At most `NOTICES_MAX` notices come between two calls; payloads of more than `PAYLOAD_LENGTH_MAX` characters
are none of ours and are dropped. After each call there is a pause, so that a flood costs a bounded number of reads. A
flood also costs the event loop a callback per notice, millions a second, and PostgreSQL can forbid it to no role. So
the connection that it comes over is closed at once, a new one is made after `PAUSE_AFTER_OVERFLOW_SECONDS`, and
everything is read again. That is no loss: nothing stays unread for longer than that pause, and `lost` is not called.

**Failure.** A server that goes away says nothing to an idle listener, and a cut cable says nothing to anybody, so the
line is tried once a heartbeat. When it fails, `lost` is called and a new connection is made after a pause. Whatever
`changed` and `read_all` raise ends the connection as well: what they had to read is read by the next `read_all`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import Counter

from mesh.rpc.errors import RpcError

HEARTBEAT_SECONDS: Final = 0.5
TIMEOUT_SECONDS: Final = 2.0
RECONNECT_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 0.02
PAUSE_AFTER_OVERFLOW_SECONDS: Final = 1.0
NOTICES_MAX: Final = 10_000
PAYLOAD_LENGTH_MAX: Final = 200

Changed = Callable[[frozenset[str]], Awaitable[None]]
ReadAll = Callable[[], Awaitable[None]]

_GAPS: Final = Counter(
    "tollway_database_gaps_total", "Times that everything had to be read again", ["channel", "cause"]
)
_EXPECTED: Final = (OSError, TimeoutError, RpcError, asyncpg.PostgresError, asyncpg.InterfaceError)

log = structlog.get_logger()


class _Flooded(Exception):
    """More notices came than are remembered."""


def _nothing() -> None:
    """Do nothing when the line is lost."""


async def follow(
    dsn: str,
    channel: str,
    *,
    changed: Changed,
    read_all: ReadAll,
    lost: Callable[[], None] = _nothing,
    refresh_seconds: float | None = None,
) -> None:
    """Follow a channel until cancelled.

    Args:
        dsn: For a connection of its own.
        channel: The channel's name.
        changed: Gets the payloads that came since it was last called.
        read_all: Reads everything again.
        lost: Called when notices are no longer heard, at the end too.
        refresh_seconds: Calls `read_all` after that long without a notice, as a safety net.
    """
    while True:
        is_flooded = False
        try:
            await _follow_once(dsn, channel, changed, read_all, refresh_seconds)
        except _Flooded:
            is_flooded = True
            log.warning("listener_flooded", channel=channel)
        except _EXPECTED as error:
            log.warning("listener_lost", channel=channel, detail=repr(error))
        except Exception:  # the loop's edge: a listener that stays away would leave old state in force
            log.exception("listener_failed", channel=channel)
        finally:
            if not is_flooded:
                lost()
        await asyncio.sleep(PAUSE_AFTER_OVERFLOW_SECONDS if is_flooded else RECONNECT_SECONDS)


async def _follow_once(
    dsn: str, channel: str, changed: Changed, read_all: ReadAll, refresh_seconds: float | None
) -> None:
    connection = await asyncpg.connect(dsn, timeout=TIMEOUT_SECONDS, command_timeout=TIMEOUT_SECONDS)
    notices = _Notices()
    beating: asyncio.Task[None] | None = None
    try:
        await connection.add_listener(channel, notices.note)
        beating = asyncio.create_task(_beat(connection, notices))
        cause = "connected"
        while True:
            payloads = frozenset[str]() if cause else await notices.take(refresh_seconds)
            if cause:
                _GAPS.labels(channel, cause).inc()
                await read_all()
                await asyncio.sleep(PAUSE_SECONDS)
            elif payloads:
                await changed(payloads)
                await asyncio.sleep(PAUSE_SECONDS)
            cause = "" if payloads or cause else "refresh"
    finally:
        if beating is not None:
            beating.cancel()
        connection.terminate()


async def _beat(connection: Any, notices: _Notices) -> None:
    try:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await connection.execute("SELECT 1")
    except _EXPECTED as error:
        notices.fail(error)


class _Notices:
    """What was heard and has not been handed on."""

    def __init__(self) -> None:
        self._payloads: set[str] = set()
        self._count = 0
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    def note(self, connection: Any, _pid: int, _channel: str, payload: str) -> None:
        """Remember a payload; too many of them close the connection that they come over."""
        self._count += 1
        if self._count > NOTICES_MAX:
            self.fail(_Flooded())
            self._payloads.clear()
            connection.terminate()
        elif len(payload) <= PAYLOAD_LENGTH_MAX:
            self._payloads.add(payload)
            self._woken.set()

    def fail(self, error: Exception) -> None:
        """End the wait: nothing is heard any more. What failed first is what is told."""
        self._failure = self._failure or error
        self._woken.set()

    async def take(self, seconds_max: float | None) -> frozenset[str]:
        """Return what was heard, waiting for the first; nothing after `seconds_max`.

        Raises:
            Exception: What `fail` was given.
        """
        try:
            async with asyncio.timeout(seconds_max):
                await self._woken.wait()
        except TimeoutError:
            return frozenset()
        self._woken.clear()
        if self._failure is not None:
            raise self._failure
        payloads, self._payloads, self._count = self._payloads, set(), 0
        return frozenset(payloads)
