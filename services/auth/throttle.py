"""Slows down whoever guesses passwords: by the account that is tried and by the address that tries.

Each name has a budget of failures that refills continuously. A sign-in that succeeds costs nothing. Whether the
account exists plays no part, so the throttle reveals nothing. Names are kept in memory, least recently used out first:
each replica counts for itself, which multiplies the budget by their number and needs no shared store on this path.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mesh.clock import Clock

FAILURES_PER_ACCOUNT_MAX: Final = 10
FAILURES_PER_ADDRESS_MAX: Final = 100
REFILL_SECONDS: Final = 15 * 60
NAMES_MAX: Final = 100_000


class FailureBudget:
    """A token bucket of failures per name.

    Args:
        failures_max: Failures in a row that a name may have.
        refill_seconds: Time in which an empty budget fills.
        clock: Monotonic time.
    """

    def __init__(self, *, failures_max: int, clock: Clock, refill_seconds: float = REFILL_SECONDS) -> None:
        self._failures_max = failures_max
        self._per_second = failures_max / refill_seconds
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """Return how long a name has to wait before its next attempt; 0 means that it may try now."""
        excess = self._spent_now(name) - (self._failures_max - 1)
        return max(0.0, excess / self._per_second)

    def spend(self, name: str) -> None:
        """Note a failure."""
        self._spent[name] = (self._spent_now(name) + 1, self._clock.monotonic())
        self._spent.move_to_end(name)
        if len(self._spent) > NAMES_MAX:
            self._spent.popitem(last=False)

    def _spent_now(self, name: str) -> float:
        spent, noted_at = self._spent.get(name, (0.0, 0.0))
        return max(0.0, spent - (self._clock.monotonic() - noted_at) * self._per_second)
