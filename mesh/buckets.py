"""Token buckets by name, for every throttle that lives in one process.

A bucket (Turner 1986, the leaky bucket as a meter) of `tokens` refills continuously, all of it in one period. Whoever
takes a token finds one or is told when there will be one. A bucket is two numbers, so nothing runs in the background,
and nothing here awaits, so that to look and to take is one step.

The number of buckets is bounded. A full bucket is not remembered, because everybody starts with one; where a new one
finds no room, the one that was used longest ago goes, and whoever owned it starts with a full one. Each process counts
for itself: with N replicas behind a balancer a caller gets up to N times as much. These buckets protect processes and
slow guessing down; what anyone is billed by is decided in Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

BUCKETS_MAX: Final = 50_000
SECONDS_PER_MINUTE: Final = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_seconds: float


class Buckets:
    """Token buckets by name, all of one size.

    Args:
        tokens: What a full bucket holds; also what comes back in a period.
        monotonic: Seconds that never go back.
        period_seconds: In which an empty bucket fills.
        buckets_max: At most this many are remembered.
    """

    def __init__(
        self,
        tokens: int,
        *,
        monotonic: Callable[[], float],
        period_seconds: float = SECONDS_PER_MINUTE,
        buckets_max: int = BUCKETS_MAX,
    ) -> None:
        self._capacity = float(tokens)
        self._rate_per_second = tokens / period_seconds
        self._monotonic = monotonic
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one token; return 0.0, or the seconds until there is one."""
        wait_seconds = self.wait_seconds(name)
        if wait_seconds == 0.0:
            self.spend(name)
        else:
            # Whoever goes on asking is not the one to be forgotten.
            self._buckets.move_to_end(name)
        return wait_seconds

    def wait_seconds(self, name: str) -> float:
        """Return the seconds until there is a token, without taking it; 0.0 where there is one."""
        return max(0.0, (1.0 - self._tokens(name)) / self._rate_per_second)

    def spend(self, name: str) -> None:
        """Take one token whether there is one or not; a bucket can owe."""
        self._put(name, self._tokens(name) - 1.0)

    def give_back(self, name: str) -> None:
        """Return a token that was taken; a bucket never holds more than its size."""
        self._put(name, self._tokens(name) + 1.0)

    def __contains__(self, name: object) -> bool:
        """Tell whether a bucket has been taken from and not been given back, as far as is remembered."""
        return name in self._buckets

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, name: str) -> float:
        bucket = self._buckets.get(name)
        if bucket is None:
            return self._capacity
        gained = (self._monotonic() - bucket.filled_at_seconds) * self._rate_per_second
        return min(self._capacity, bucket.tokens + gained)

    def _put(self, name: str, tokens: float) -> None:
        if tokens >= self._capacity:
            self._buckets.pop(name, None)
            return
        self._buckets[name] = _Bucket(tokens, self._monotonic())
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)
