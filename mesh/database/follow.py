"""Follows a channel of NOTIFY: the one loop that every listener runs.

A notice says only that something has changed, and where to look; what has changed is read from the tables. So a notice
may be lost, come twice or be made up (PostgreSQL lets every role notify on every channel), and nothing becomes wrong.

**Gaps.** Once listening has begun, `read_all` is called, because there may have been changes before; and so again after
every new connection, and when too many notices came to remember them all. Between those, `changed` gets the payloads
that came, each once however often it came.

**Bounds.** At most `PAYLOADS_MAX` payloads of `PAYLOAD_LENGTH_MAX` characters are remembered; longer ones are none of
ours and are dropped. After each call there is a pause, so that a flood costs a bounded number of reads.

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
PAYLOADS_MAX: Final = 10_000
PAYLOAD_LENGTH_MAX: Final = 200

Changed = Callable[[frozenset[str]], Awaitable[None]]
ReadAll = Callable[[], Awaitable[None]]

_GAPS: Final = Counter(
    "tollway_database_gaps_total", "Times that everything had to be read again", ["channel", "cause"]
)
_EXPECTED: Final = (OSError, TimeoutError, RpcError, asyncpg.PostgresError, asyncpg.InterfaceError)

log = structlog.get_logger()


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
        try:
            await _follow_once(dsn, channel, changed, read_all, refresh_seconds)
        except _EXPECTED as error:
            log.warning("listener_lost", channel=channel, detail=repr(error))
        except Exception:  # the loop's edge: a listener that stays away would leave old state in force
            log.exception("listener_failed", channel=channel)
        finally:
            lost()
        await asyncio.sleep(RECONNECT_SECONDS)


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
            if cause or payloads is None:
                _GAPS.labels(channel, cause or "overflow").inc()
                await read_all()
                await asyncio.sleep(PAUSE_SECONDS if cause else PAUSE_AFTER_OVERFLOW_SECONDS)
            elif payloads:
                await changed(payloads)
                await asyncio.sleep(PAUSE_SECONDS)
            cause = "" if payloads is None or payloads or cause else "refresh"
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
        self._overflown = False
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    def note(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        """Remember a payload."""
        if len(payload) > PAYLOAD_LENGTH_MAX:
            return
        if len(self._payloads) >= PAYLOADS_MAX:
            self._overflown = True
            self._payloads.clear()
        if not self._overflown:
            self._payloads.add(payload)
        self._woken.set()

    def fail(self, error: Exception) -> None:
        """End the wait: nothing is heard any more."""
        self._failure = error
        self._woken.set()

    async def take(self, seconds_max: float | None) -> frozenset[str] | None:
        """Return what was heard, waiting for the first; nothing after `seconds_max`, None where it was too much.

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
        payloads, self._payloads = self._payloads, set()
        overflown, self._overflown = self._overflown, False
        return None if overflown else frozenset(payloads)
