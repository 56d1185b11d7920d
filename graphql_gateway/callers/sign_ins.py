"""How often anyone may guess at a password, without anyone being able to keep the account's owner out.

A sign-in is counted before it is tried and given back when it succeeds, so that any number of parallel guesses gets no
further than the same number one after another, and whoever knows the password is not slowed down by using it. Three
measures apply, each a token bucket:

- per address: guesses at many accounts from one place;
- per address and account: guesses at one account from one place;
- per account, from all addresses together: guesses from many places.

The third one refuses only addresses from which somebody failed at this very account in the last
`FAILURE_REMEMBERED_SECONDS`. An owner who signs in from an address without failures is therefore never refused because
of what strangers do elsewhere, however many they are. What is accepted in exchange: each address has one guess at each
account before the account's measure sees it. `auth` counts on its own behind this, per account and address.

An address from which somebody signed in to an account is familiar to it: only the measure of the two together applies
there. An owner who mistypes once, or who shares an address with a stranger, is not kept out by what strangers do.

Only digests of accounts are kept. Buckets, remembered failures and familiar addresses are bounded; the oldest go first.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from graphql_gateway.callers.addresses import network_of
from graphql_gateway.callers.admission import AdmissionLimits, refusal, take_or_refuse
from mesh.buckets import Buckets

FAILURE_REMEMBERED_SECONDS: Final = 900.0
FAILURES_MAX: Final = 50_000
FAMILIAR_MAX: Final = 50_000
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that was counted and has not ended yet.

    Attributes:
        network: Where it comes from.
        account: Digest of the e-mail address that it names, or an empty string.
        is_familiar: Whether somebody signed in to this account from there before.
        counted_for_account: Whether the account's bucket had a token for it.
    """

    network: str
    account: str
    is_familiar: bool = False
    counted_for_account: bool = False

    @property
    def pair(self) -> str:
        """Return the name of address and account together."""
        return f"{self.network} {self.account}"


class SignIns:
    """Counts sign-ins and whatever else changes something without credentials.

    Args:
        limits: Attempts a minute.
        monotonic: Seconds that never go back.
    """

    def __init__(self, limits: AdmissionLimits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._addresses = Buckets(limits.sign_in_address_per_minute, monotonic=monotonic)
        self._pairs = Buckets(limits.sign_in_pair_per_minute, monotonic=monotonic)
        self._accounts = Buckets(limits.sign_in_account_per_minute, monotonic=monotonic)
        self._failed_at_seconds: OrderedDict[str, float] = OrderedDict()
        self._familiar: OrderedDict[str, None] = OrderedDict()

    def begin(self, address: str, email: str) -> Attempt:
        """Count an attempt before it is tried.

        Args:
            address: Where it comes from.
            email: The e-mail address that it names, or an empty string.

        Raises:
            Failure: RATE_LIMITED.
        """
        attempt = Attempt(network=network_of(address), account=_digest(email))
        if attempt.account and attempt.pair in self._familiar:
            take_or_refuse(self._pairs, attempt.pair, "sign_in_address_and_account")
            return replace(attempt, is_familiar=True)
        take_or_refuse(self._addresses, attempt.network, "sign_in_address")
        if not attempt.account:
            return attempt
        take_or_refuse(self._pairs, attempt.pair, "sign_in_address_and_account")
        wait_seconds = self._accounts.take(attempt.account)
        if wait_seconds > 0.0 and self._failed_lately(attempt.pair):
            raise refusal("sign_in_account", wait_seconds)
        return replace(attempt, counted_for_account=wait_seconds <= 0.0)

    def succeeded(self, attempt: Attempt) -> None:
        """Give back what an attempt was counted as: only failures use anything up. The address is familiar now."""
        if not attempt.is_familiar:
            self._addresses.give_back(attempt.network)
        if attempt.account:
            self._pairs.give_back(attempt.pair)
            self._failed_at_seconds.pop(attempt.pair, None)
            self._familiar[attempt.pair] = None
            self._familiar.move_to_end(attempt.pair)
            if len(self._familiar) > FAMILIAR_MAX:
                self._familiar.popitem(last=False)
        if attempt.counted_for_account:
            self._accounts.give_back(attempt.account)

    def failed(self, attempt: Attempt) -> None:
        """Remember that somebody failed at this account from this address."""
        if not attempt.account:
            return
        self._failed_at_seconds[attempt.pair] = self._monotonic()
        self._failed_at_seconds.move_to_end(attempt.pair)
        if len(self._failed_at_seconds) > FAILURES_MAX:
            self._failed_at_seconds.popitem(last=False)

    def _failed_lately(self, pair: str) -> bool:
        failed_at_seconds = self._failed_at_seconds.get(pair)
        return failed_at_seconds is not None and (self._monotonic() - failed_at_seconds < FAILURE_REMEMBERED_SECONDS)


def _digest(email: str) -> str:
    """Return what an account is counted by: a digest of its address as people mean it."""
    meant = email.strip().lower()
    return hashlib.blake2b(meant.encode(errors="replace"), digest_size=_DIGEST_BYTES).hexdigest() if meant else ""
