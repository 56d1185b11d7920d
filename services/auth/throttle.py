"""Slows down whoever guesses passwords, without locking anybody out.

An attempt is counted before its password is verified, and the count is given back only where the password was right (or
nothing was verified). Whatever runs side by side, no more wrong passwords are verified than the budgets say.

Three names are counted, each with a budget of failures that refills continuously:

- the account as tried from one address: the tight budget;
- the address, whatever accounts it tries;
- the account, whatever addresses try it. This one refuses only addresses that have failed at this account themselves
  within `REFILL_SECONDS`, so strangers who fail on purpose keep nobody out who comes from elsewhere. What is accepted
  in exchange: every address has one guess at every account.

An address from which somebody signed in to the account has a budget of its own for that account: neither of the two
wide budgets applies to it. Whether the account exists plays no part in any of this, so the throttle reveals nothing.

An IPv6 address counts as its /64, which is what one customer of a provider has. Names are kept in memory, least
recently used out first: each replica counts for itself, which multiplies the budgets by their number and needs no
shared store on this path. A restart forgets failures and familiar addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from mesh.buckets import Buckets
from mesh.clock import Clock

FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX: Final = 10
FAILURES_PER_ADDRESS_MAX: Final = 100
FAILURES_PER_ACCOUNT_MAX: Final = 200
REFILL_SECONDS: Final = 15 * 60
NAMES_MAX: Final = 100_000
IPV6_PREFIX_BITS: Final = 64


class FailureBudget:
    """A token bucket of failures per name, and when each name failed last.

    Args:
        failures_max: Failures in a row that a name may have.
        refill_seconds: Time in which an empty budget fills.
        clock: Monotonic time.
    """

    def __init__(self, *, failures_max: int, clock: Clock, refill_seconds: float = REFILL_SECONDS) -> None:
        self._buckets = Buckets(
            failures_max, monotonic=clock.monotonic, period_seconds=refill_seconds, buckets_max=NAMES_MAX
        )
        self._refill_seconds = refill_seconds
        self._clock = clock
        self._noted_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """Return how long a name has to wait before its next attempt; 0 means that it may try now."""
        return self._buckets.wait_seconds(name)

    def spend(self, name: str) -> None:
        """Count an attempt."""
        self._buckets.spend(name)
        self._note(name)

    def give_back(self, name: str) -> None:
        """Take an attempt out of the count again."""
        self._buckets.give_back(name)
        self._note(name)

    def has_failed_lately(self, name: str) -> bool:
        """Tell whether a name had a failure within the time in which a budget fills."""
        noted_at = self._noted_at.get(name)
        return noted_at is not None and self._clock.monotonic() - noted_at < self._refill_seconds

    def _note(self, name: str) -> None:
        if name not in self._buckets:
            self._noted_at.pop(name, None)
            return
        self._noted_at[name] = self._clock.monotonic()
        self._noted_at.move_to_end(name)
        if len(self._noted_at) > NAMES_MAX:
            self._noted_at.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that was counted and has not ended yet."""

    account: str
    network: str
    is_familiar: bool
    """Whether somebody signed in to this account from this network before."""

    @property
    def pair(self) -> str:
        """Return the name of account and network together."""
        return f"{self.account}\0{self.network}"


class SignInThrottle:
    """The budgets of signing in. Nothing here awaits, so that to look and to count is one step.

    Args:
        clock: Monotonic time.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._pairs = FailureBudget(failures_max=FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX, clock=clock)
        self._addresses = FailureBudget(failures_max=FAILURES_PER_ADDRESS_MAX, clock=clock)
        self._accounts = FailureBudget(failures_max=FAILURES_PER_ACCOUNT_MAX, clock=clock)
        self._familiar: OrderedDict[str, None] = OrderedDict()

    def begin(self, account: str, address: str) -> Attempt | float:
        """Count an attempt, or return how many seconds it has to wait.

        Args:
            account: The e-mail address in lower case.
            address: Where the attempt comes from.
        """
        network = network_of(address)
        attempt = Attempt(account=account, network=network, is_familiar=f"{account}\0{network}" in self._familiar)
        wait_seconds = self._wait_seconds(attempt)
        if wait_seconds > 0:
            return wait_seconds
        for budget, name in self._budgets(attempt):
            budget.spend(name)
        return attempt

    def succeeded(self, attempt: Attempt) -> None:
        """Give the count back and remember that the address is familiar to the account."""
        self.give_back(attempt)
        self._familiar[attempt.pair] = None
        self._familiar.move_to_end(attempt.pair)
        if len(self._familiar) > NAMES_MAX:
            self._familiar.popitem(last=False)

    def give_back(self, attempt: Attempt) -> None:
        """Take an attempt out of the count: no password was verified, or it was right."""
        for budget, name in self._budgets(attempt):
            budget.give_back(name)

    def _wait_seconds(self, attempt: Attempt) -> float:
        wait_seconds = self._pairs.wait_seconds(attempt.pair)
        if attempt.is_familiar:
            return wait_seconds
        wait_seconds = max(wait_seconds, self._addresses.wait_seconds(attempt.network))
        if self._pairs.has_failed_lately(attempt.pair):
            wait_seconds = max(wait_seconds, self._accounts.wait_seconds(attempt.account))
        return wait_seconds

    def _budgets(self, attempt: Attempt) -> tuple[tuple[FailureBudget, str], ...]:
        pair = (self._pairs, attempt.pair)
        if attempt.is_familiar:
            return (pair,)
        return pair, (self._addresses, attempt.network), (self._accounts, attempt.account)


def network_of(address: str) -> str:
    """Return what an address is counted by.

    Args:
        address: An IP address, or gRPC's name of a peer without its port (`ipv4:192.0.2.1`, `ipv6:%5B::1%5D`).
    """
    text = unquote(address.removeprefix("ipv4:").removeprefix("ipv6:")).strip("[]")
    with contextlib.suppress(ValueError):
        parsed = ipaddress.ip_address(text)
        if isinstance(parsed, ipaddress.IPv4Address):
            return str(parsed)
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX_BITS), strict=False))
    return text
