"""One routes table together with the connections of its upstreams, built whole and swapped whole.

An exchange keeps the pool that belonged to the table it was matched against. So a reload that renames or removes an
upstream changes nothing for requests that are on their way: the old pool goes on serving them, keeps no connection
after that, and is gone with its last one. Upstreams that a new table describes alike keep their pool.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from edge_proxy.http1.client.origin import parse_origin
from edge_proxy.http1.client.pool import Origin, OriginLimits, Sweep
from edge_proxy.routing.routes import RouteTable, Upstream

# An origin that could not be connected to is asked last for this long.
REST_SECONDS: Final = 1.0


class UpstreamPool:
    """The origins of one upstream, in turn.

    Args:
        upstream: What the routes file says about it.
        sweep: The coarse clock of connections.
        tls: For origins that speak it.

    Raises:
        ValueError: An origin is not one.
    """

    def __init__(self, upstream: Upstream, sweep: Sweep, tls: ssl.SSLContext | None) -> None:
        limits = OriginLimits(
            connections_max=upstream.connections_max,
            keep_alive_connections=upstream.keep_alive_connections,
            keep_alive_idle_seconds=upstream.keep_alive_idle_seconds,
        )
        self.upstream = upstream
        self._sweep = sweep
        self._origins = [Origin(parse_origin(url), limits, sweep, tls) for url in upstream.urls]
        self._resting: dict[Origin, float] = {}
        self._turn = 0

    def pick(self) -> Origin:
        """Return the origin whose turn it is, a resting one only where all of them rest."""
        origins = self._origins
        if len(origins) == 1:
            return origins[0]
        turn = self._turn
        for at in range(turn, turn + len(origins)):
            origin = origins[at % len(origins)]
            if not self._rests(origin):
                self._turn = at + 1
                return origin
        self._turn = turn + 1
        return origins[turn % len(origins)]

    def others(self, tried: Origin) -> list[Origin]:
        """Return the other origins for a request that could not be sent to one, those that rest last."""
        others = [origin for origin in self._origins if origin is not tried]
        return sorted(others, key=self._rests)

    def rest(self, origin: Origin) -> None:
        """Remember that an origin could not be connected to."""
        self._resting[origin] = self._sweep.now + REST_SECONDS

    def retire(self) -> None:
        """Keep no connections any more."""
        for origin in self._origins:
            origin.retire()

    def _rests(self, origin: Origin) -> bool:
        until = self._resting.get(origin)
        if until is None:
            return False
        if until > self._sweep.now:
            return True
        del self._resting[origin]
        return False


class Generation:
    """A table in force and its pools.

    Args:
        table: The routes.
        pools: By the name of the upstream.
    """

    def __init__(self, table: RouteTable, pools: Mapping[str, UpstreamPool]) -> None:
        self.table = table
        self.pools = pools


def build(table: RouteTable, sweep: Sweep, before: Generation | None = None) -> Generation:
    """Build everything that a table needs, or raise and leave `before` as it is.

    Raises:
        ValueError: An origin is not one.
        OSError: The system's certificates cannot be read.
    """
    held = before.pools if before is not None else {}
    needs_tls = any(url.startswith("https:") for upstream in table.upstreams.values() for url in upstream.urls)
    tls = ssl.create_default_context() if needs_tls else None
    pools: dict[str, UpstreamPool] = {}
    for name, upstream in table.upstreams.items():
        known = held.get(name)
        pools[name] = known if known is not None and known.upstream == upstream else UpstreamPool(upstream, sweep, tls)
    return Generation(table, pools)


def retire(before: Generation, after: Generation) -> None:
    """Let the pools that the new generation does not have drain."""
    kept = {id(pool) for pool in after.pools.values()}
    for pool in before.pools.values():
        if id(pool) not in kept:
            pool.retire()
