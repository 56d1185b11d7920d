"""Slows down whoever guesses passwords, without locking anybody out.

Three names are counted: the account as tried from one address, which is the tight budget; the address, whatever
accounts it tries; and the account, whatever addresses try it, which is wide, so that a stranger who fails on purpose
does not keep the owner from signing in elsewhere. Each name has a budget of failures that refills continuously. A
sign-in that succeeds costs nothing. Whether the account exists plays no part, so the throttle reveals nothing. Names
are kept in memory, least recently used out first: each replica counts for itself, which multiplies the budgets by their
number and needs no shared store on this path.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mesh.clock import Clock

FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX: Final = 10
FAILURES_PER_ADDRESS_MAX: Final = 100
FAILURES_PER_ACCOUNT_MAX: Final = 200
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


class SignInThrottle:
    """The three budgets of signing in.

    Args:
        clock: Monotonic time.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._pairs = FailureBudget(failures_max=FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX, clock=clock)
        self._addresses = FailureBudget(failures_max=FAILURES_PER_ADDRESS_MAX, clock=clock)
        self._accounts = FailureBudget(failures_max=FAILURES_PER_ACCOUNT_MAX, clock=clock)

    def wait_seconds(self, account: str, address: str) -> float:
        """Return how long this attempt has to wait; 0 means that it may go on."""
        return max(
            self._pairs.wait_seconds(_pair(account, address)),
            self._addresses.wait_seconds(address),
            self._accounts.wait_seconds(account),
        )

    def note_failure(self, account: str, address: str) -> None:
        """Note an attempt that failed."""
        self._pairs.spend(_pair(account, address))
        self._addresses.spend(address)
        self._accounts.spend(account)


def _pair(account: str, address: str) -> str:
    return f"{account}\0{address}"
