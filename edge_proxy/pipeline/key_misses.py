"""How often one client address may show keys that `auth` must be asked about and does not know.

A key has a check sum, but whoever knows the format can make as many as they like, and each would cost `auth` a query.
So every question is taken from a bucket of the client's address before it is asked (many at once cannot slip through)
and given back when the key turns out to be known. IPv6 clients count by their /64, which is what one subscriber has.

The table is bounded: the address that was seen longest ago goes first. Somebody with more addresses than the table has
places gets fresh buckets; what `auth` does then is bounded by the resolver's queue.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

MISSES_BURST: Final = 100
MISSES_PER_SECOND: Final = 10.0
ADDRESSES_MAX: Final = 20_000
IPV6_PREFIX_BITS: Final = 64


class KeyMisses:
    """A bucket per address.

    Args:
        now_seconds: Monotonic time.
    """

    def __init__(self, now_seconds: Callable[[], float]) -> None:
        self._now_seconds = now_seconds
        # Tokens left and when they were counted; in the order of last use.
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, address: str) -> bool:
        """Take one question from an address's bucket, or tell that it is empty."""
        name, now = _counted_as(address), self._now_seconds()
        tokens = self._tokens(name, now)
        is_allowed = tokens >= 1.0
        self._put(name, tokens - 1.0 if is_allowed else tokens, now)
        return is_allowed

    def give_back(self, address: str) -> None:
        """Return the question of a key that was known, or that nobody could be asked about."""
        name, now = _counted_as(address), self._now_seconds()
        self._put(name, self._tokens(name, now) + 1.0, now)

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, name: str, now: float) -> float:
        tokens, counted_at = self._buckets.pop(name, (MISSES_BURST, now))
        return min(MISSES_BURST, tokens + (now - counted_at) * MISSES_PER_SECOND)

    def _put(self, name: str, tokens: float, now: float) -> None:
        if tokens >= MISSES_BURST:
            # A full bucket is what everybody starts with.
            return
        self._buckets[name] = (tokens, now)
        if len(self._buckets) > ADDRESSES_MAX:
            del self._buckets[next(iter(self._buckets))]


def _counted_as(address: str) -> str:
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), IPV6_PREFIX_BITS), strict=False))
