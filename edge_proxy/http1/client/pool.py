"""Kept connections to upstreams: last in, first out, so that few stay warm and the rest grow old and are closed.

One pool per origin and worker. There is a bound on idle connections and one on all of them; above the latter requests
are refused rather than queued, because a queue in front of a slow upstream only makes every answer late.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

from edge_proxy.http1.client.connection import (
    NEVER,
    UpstreamBusy,
    UpstreamConnection,
    UpstreamFailed,
    UpstreamTimedOut,
)
from edge_proxy.routing.routes import Upstream

SWEEP_SECONDS: Final = 0.1


class Origin:
    """The connections to one origin of an upstream.

    Args:
        url: `http://host[:port]` or `https://host[:port]`.
        upstream: Whose limits apply.
    """

    def __init__(self, url: str, upstream: Upstream) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._upstream = upstream
        self._idle: list[UpstreamConnection] = []
        self._active: set[UpstreamConnection] = set()
        self._opening = 0
        self.host_line = f"Host: {parts.netloc}\r\n".encode("ascii")

    async def acquire(self, connect_timeout_seconds: float) -> UpstreamConnection:
        """Return a kept connection, or open one.

        Raises:
            UpstreamFailed: It cannot be opened.
            UpstreamTimedOut: Not in time.
            UpstreamBusy: There are as many as there may be.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                self._active.add(connection)
                return connection
        return await self.open(connect_timeout_seconds)

    async def open(self, connect_timeout_seconds: float) -> UpstreamConnection:
        """Open a fresh connection; errors as in `acquire`."""
        if len(self._active) + self._opening >= self._upstream.connections_max:
            raise UpstreamBusy
        self._opening += 1
        try:
            async with asyncio.timeout(connect_timeout_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    UpstreamConnection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamFailed("connecting took too long") from None
        except OSError as error:
            raise UpstreamFailed(str(error)) from None
        finally:
            self._opening -= 1
        self._active.add(connection)
        return connection

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """Take a connection back: kept if its answer was whole and it may be used again, else closed."""
        self._active.discard(connection)
        connection.deadline = NEVER
        if (
            connection.is_complete
            and connection.is_reusable
            and connection.is_open
            and len(self._idle) < self._upstream.keep_alive_connections
        ):
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.close()

    def sweep(self, now: float) -> None:
        """Fail exchanges whose deadline has passed and close connections that were idle for too long."""
        for connection in [c for c in self._active if c.deadline < now]:
            connection.fail(UpstreamTimedOut())
        oldest = now - self._upstream.keep_alive_idle_seconds
        if all(connection.is_open and connection.idle_since >= oldest for connection in self._idle):
            return
        for connection in self._idle:
            if connection.idle_since < oldest:
                connection.close()
        # Those that the upstream closed must not count against the bound.
        self._idle = [connection for connection in self._idle if connection.is_open]

    def close(self) -> None:
        """Close idle connections; active ones close when they come back."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class Upstreams:
    """All origins of a route table, round robin within an upstream."""

    def __init__(self) -> None:
        self._origins: dict[str, list[Origin]] = {}
        self._configured: dict[str, Upstream] = {}
        self._next: dict[str, int] = {}
        self._retired: list[Origin] = []
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self.now = self._loop.time()

    def configure(self, upstreams: dict[str, Upstream]) -> None:
        """Take a new table's upstreams; unchanged ones keep their connections."""
        for name, known in self._configured.items():
            if upstreams.get(name) != known:
                retired = self._origins.pop(name)
                for origin in retired:
                    origin.close()
                self._retired += retired
        for name, upstream in upstreams.items():
            if name not in self._origins:
                self._origins[name] = [Origin(url, upstream) for url in upstream.urls]
                self._next[name] = 0
        self._configured = dict(upstreams)

    def pick(self, upstream: Upstream) -> Origin:
        """Return the next origin of an upstream."""
        origins = self._origins[upstream.name]
        if len(origins) == 1:
            return origins[0]
        turn = self._next[upstream.name]
        self._next[upstream.name] = turn + 1
        return origins[turn % len(origins)]

    def close(self) -> None:
        """Stop sweeping and close idle connections."""
        self._handle.cancel()
        for origins in self._origins.values():
            for origin in origins:
                origin.close()

    def _sweep(self) -> None:
        self.now = now = self._loop.time()
        self._handle = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        for origins in (*self._origins.values(), self._retired):
            for origin in origins:
                origin.sweep(now)
