"""Counts the edges: every Decide stream holds a lease in Redis while it is open.

An edge that loses the limiter enforces its share of each limit, and the share is one over the number of live edges. So
the count must be there before it is needed: it is renewed in the background and travels in every answer. A lease that
is not renewed for `LEASE_SECONDS` ends by itself; while Redis is away the last count stands.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from mesh.ids import IdSource
from mesh.redis import Command, RedisPipe, RedisUnavailable, Reply

LEASE_SECONDS: Final = 10
RENEW_INTERVAL_SECONDS: Final = 3.0
_KEY: Final = "rl:edges"
_KEY_BYTES: Final = _KEY.encode()

# On Redis' own clock, so that replicas agree. One key, so it lives on one node of a cluster.
_RENEW: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
for index = 2, #ARGV do
  redis.call('ZADD', KEYS[1], now_ms + ARGV[1] * 1000, ARGV[index])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('ZCARD', KEYS[1])
"""

_LIVE: Final = Gauge("tollway_ratelimit_live_edges", "Edge workers with a live lease")

log = structlog.get_logger()


class EdgeLeases:
    """The leases of this process's streams, and the count of all.

    Args:
        pipe: The way to Redis.
        ids: Names the leases.
    """

    def __init__(self, *, pipe: RedisPipe, ids: IdSource) -> None:
        self._pipe = pipe
        self._ids = ids
        self._held: set[str] = set()
        self._changed = asyncio.Event()
        self._live_count = 1

    @property
    def live_count(self) -> int:
        """Return the number of live edges, at least those that are connected here, at least 1."""
        return max(1, self._live_count, len(self._held))

    def acquire(self) -> str:
        """Start a lease for a stream and return its name."""
        lease = str(self._ids.uuid7())
        self._held.add(lease)
        self._changed.set()
        return lease

    def release(self, lease: str) -> None:
        """End a lease; the count follows with the next renewal."""
        self._held.discard(lease)
        self._pipe.call([("ZREM", _KEY, lease)], [_KEY_BYTES]).add_done_callback(_forget)
        self._changed.set()

    async def run(self) -> None:
        """Renew until cancelled, at once when a stream comes or goes."""
        while True:
            self._changed.clear()
            try:
                await self._renew()
            except RedisUnavailable as error:
                log.debug("leases_not_renewed", detail=repr(error))
                await asyncio.sleep(RENEW_INTERVAL_SECONDS / 10)
                continue
            try:
                async with asyncio.timeout(RENEW_INTERVAL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _renew(self) -> None:
        command: Command = ("EVAL", _RENEW, 1, _KEY, LEASE_SECONDS, *sorted(self._held))
        (reply,) = await self._pipe.call([command], [_KEY_BYTES])
        if isinstance(reply, int):
            self._live_count = reply
            _LIVE.set(reply)
        else:
            log.warning("leases_refused", detail=repr(reply))


def _forget(answered: asyncio.Future[list[Reply]]) -> None:
    """Look at the outcome so that asyncio does not report it; the lease ends by itself anyway."""
    if not answered.cancelled():
        answered.exception()
