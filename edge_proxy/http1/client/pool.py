"""Kept connections to origins: last in, first out, so that few stay warm and the rest grow old and are closed.

One pool per origin and worker. There is a bound on idle connections and one on all of them; above the latter requests
are refused rather than queued, because a queue in front of a slow origin only makes every answer late.

An answer that has no body by rule (to HEAD, 204, 304) may be followed by one all the same, a little later. Its
connection rests for `QUARANTINE_SECONDS` before it is used again; one that says anything in that time is closed, and
from then on so is every connection to that origin after such an answer.

One sweep for all origins compares deadlines, ten times a second: a timer per request would cost more than its parsing.
An origin takes part in it while it has connections, so one that no table names any more drains and is gone.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from edge_proxy.http1.client.connection import (
    NEVER,
    UpstreamBusy,
    UpstreamConnection,
    UpstreamFailed,
)
from edge_proxy.http1.client.origin import OriginAddress

SWEEP_SECONDS: Final = 0.1
QUARANTINE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginLimits:
    """How many connections an origin may have, and how long an unused one is kept."""

    connections_max: int
    keep_alive_connections: int
    keep_alive_idle_seconds: float


class Sweep:
    """The coarse clock of all connections to origins, and what happens as it moves on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(SWEEP_SECONDS, self._run)
        self._origins: set[Origin] = set()
        self.now = self._loop.time()
        self.quarantine_seconds = QUARANTINE_SECONDS

    def add(self, origin: Origin) -> None:
        """Sweep an origin until it has no connection left."""
        self._origins.add(origin)

    def close(self) -> None:
        """Stop, and close idle connections."""
        self._handle.cancel()
        for origin in self._origins:
            origin.retire()

    def _run(self) -> None:
        self.now = now = self._loop.time()
        self._handle = self._loop.call_later(SWEEP_SECONDS, self._run)
        for origin in list(self._origins):
            if not origin.sweep(now):
                self._origins.discard(origin)


class Origin:
    """The connections to one origin.

    Args:
        address: Where it listens.
        limits: How many there may be.
        sweep: Watches their deadlines.
        tls: For origins that speak it.
    """

    def __init__(
        self, address: OriginAddress, limits: OriginLimits, sweep: Sweep, tls: ssl.SSLContext | None = None
    ) -> None:
        if address.is_tls and tls is None:
            raise ValueError(f"{address.url} needs a TLS context")
        self._address = address
        self._limits = limits
        self._sweep = sweep
        self._tls = tls if address.is_tls else None
        self._idle: list[UpstreamConnection] = []
        self._quarantined: list[UpstreamConnection] = []
        self._active: set[UpstreamConnection] = set()
        self._opening = 0
        self._is_retired = False
        self._distrusts_bodiless = False
        self.url = address.url
        self.host_line = address.host_line

    def kept(self) -> UpstreamConnection | None:
        """Return a kept connection, if there is one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                self._active.add(connection)
                return connection
        return None

    async def open(self, connect_timeout_seconds: float) -> UpstreamConnection:
        """Open a fresh connection.

        Raises:
            UpstreamFailed: It cannot be opened, or not in time.
            UpstreamBusy: There are as many as there may be.
        """
        if len(self._active) + self._opening >= self._limits.connections_max:
            raise UpstreamBusy
        self._opening += 1
        self._sweep.add(self)
        address = self._address
        try:
            async with asyncio.timeout(connect_timeout_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    UpstreamConnection,
                    address.host,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamFailed("connecting took too long") from None
        except (OSError, UnicodeError) as error:
            raise UpstreamFailed(f"cannot connect: {error}") from None
        finally:
            self._opening -= 1
        self._active.add(connection)
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back: kept if its answer was whole and it may be used again, else closed."""
        self._active.discard(connection)
        connection.deadline = connection.write_deadline = connection.expires = NEVER
        if not self._may_keep(connection):
            connection.discard()
            return
        connection.idle_since = self._sweep.now
        if not connection.is_bodiless:
            self._idle.append(connection)
        elif self._distrusts_bodiless:
            connection.discard()
        else:
            self._quarantined.append(connection)

    def retire(self) -> None:
        """Keep no connection any more; those in use close when they come back."""
        self._is_retired = True
        for connection in (*self._idle, *self._quarantined):
            connection.discard()
        self._idle.clear()
        self._quarantined.clear()

    def sweep(self, now: float) -> bool:
        """Fail exchanges whose time is up and close what was idle for too long; tell whether any connection is left."""
        for connection in self._active:
            connection.time_out(now)
        if self._quarantined:
            self._end_quarantine(now - self._sweep.quarantine_seconds)
        oldest = now - self._limits.keep_alive_idle_seconds
        if not all(connection.is_open and connection.idle_since >= oldest for connection in self._idle):
            for connection in self._idle:
                if connection.idle_since < oldest or not connection.is_open:
                    connection.discard()
            # Those that the origin closed must not count against the bound.
            self._idle = [connection for connection in self._idle if connection.is_open]
        return bool(self._active or self._idle or self._quarantined or self._opening)

    def _may_keep(self, connection: UpstreamConnection) -> bool:
        return (
            connection.is_complete
            and connection.is_reusable
            and connection.is_open
            and not self._is_retired
            and len(self._idle) + len(self._quarantined) < self._limits.keep_alive_connections
        )

    def _end_quarantine(self, oldest: float) -> None:
        waiting: list[UpstreamConnection] = []
        for connection in self._quarantined:
            if connection.has_excess:
                self._distrusts_bodiless = True
            if not connection.is_open:
                connection.discard()
            elif connection.idle_since > oldest:
                waiting.append(connection)
            else:
                self._idle.append(connection)
        self._quarantined = waiting
