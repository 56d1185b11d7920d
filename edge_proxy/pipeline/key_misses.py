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

from mesh.buckets import Buckets

MISSES_BURST: Final = 100
MISSES_PER_SECOND: Final = 10.0
ADDRESSES_MAX: Final = 20_000
IPV6_PREFIX_BITS: Final = 64


class KeyMisses:
    """A bucket per address.

    Args:
        now_seconds: Monotonic time.
        addresses_max: How many addresses are remembered.
    """

    def __init__(self, now_seconds: Callable[[], float], addresses_max: int = ADDRESSES_MAX) -> None:
        self._buckets = Buckets(
            MISSES_BURST,
            monotonic=now_seconds,
            period_seconds=MISSES_BURST / MISSES_PER_SECOND,
            buckets_max=addresses_max,
        )

    def take(self, address: str) -> bool:
        """Take one question from an address's bucket, or tell that it is empty."""
        return self._buckets.take(_counted_as(address)) == 0.0

    def give_back(self, address: str) -> None:
        """Return the question of a key that was known, or that nobody could be asked about."""
        self._buckets.give_back(_counted_as(address))

    def __len__(self) -> int:
        return len(self._buckets)


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
