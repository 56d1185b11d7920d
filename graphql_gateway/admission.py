"""How much of the gateway one address, one caller and one organization may use.

Token buckets (Turner 1986, the leaky bucket as a meter): a bucket of `capacity` tokens refills continuously and a
request takes one; whoever finds none is told when there will be one. A bucket is two numbers, so nothing runs in the
background. Buckets live in this process: with N gateways behind a balancer a caller gets up to N times as much, which
is accepted, because these limits protect the gateway and slow guessing down, and are not what anyone is billed by.

The number of buckets is bounded. When a new one finds no room, the one that was used longest ago goes; whoever owned
it starts with a full one. IPv6 clients are counted by /64, the smallest network that one customer line has.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from graphql_gateway import errors, metrics
from graphql_gateway.failure import Failure
from graphql_gateway.identity import Identity

BUCKETS_MAX: Final = 50_000
IPV6_PREFIX_BITS: Final = 64
SECONDS_PER_MINUTE: Final = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_seconds: float


class Buckets:
    """Token buckets by name, all of one size.

    Args:
        per_minute: Tokens that come back in a minute; also what a full bucket holds.
        monotonic: Seconds that never go back.
        buckets_max: At most this many are remembered.
    """

    def __init__(self, per_minute: int, *, monotonic: Callable[[], float], buckets_max: int = BUCKETS_MAX) -> None:
        self._capacity = float(per_minute)
        self._rate_per_second = per_minute / SECONDS_PER_MINUTE
        self._monotonic = monotonic
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> float:
        """Take one token; return 0.0, or the seconds until there is one."""
        bucket = self._bucket(name)
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / self._rate_per_second

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, name: str) -> _Bucket:
        now_seconds = self._monotonic()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._capacity, now_seconds)
            if len(self._buckets) > self._buckets_max:
                self._buckets.popitem(last=False)
            return bucket
        gained = (now_seconds - bucket.filled_at_seconds) * self._rate_per_second
        bucket.tokens = min(self._capacity, bucket.tokens + gained)
        bucket.filled_at_seconds = now_seconds
        self._buckets.move_to_end(name)
        return bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Requests a minute, each also the size of a burst."""

    address_per_minute: int = 1_200
    principal_per_minute: int = 600
    organization_per_minute: int = 3_000
    sign_in_address_per_minute: int = 30
    sign_in_person_per_minute: int = 10


class Admission:
    """Decides whether the gateway works for a caller now.

    Args:
        limits: Requests a minute.
        monotonic: Seconds that never go back.
    """

    def __init__(self, limits: AdmissionLimits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        def buckets(per_minute: int) -> Buckets:
            return Buckets(per_minute, monotonic=monotonic)

        self._addresses = buckets(limits.address_per_minute)
        self._principals = buckets(limits.principal_per_minute)
        self._organizations = buckets(limits.organization_per_minute)
        self._sign_in_addresses = buckets(limits.sign_in_address_per_minute)
        self._sign_in_people = buckets(limits.sign_in_person_per_minute)

    def admit_address(self, address: str) -> None:
        """Take a request from an address, before anything else is done for it.

        Raises:
            Failure: RATE_LIMITED.
        """
        _take(self._addresses, network_of(address), "address")

    def admit_identity(self, identity: Identity) -> None:
        """Take a request from a caller and its organization; anonymous callers have only an address.

        Raises:
            Failure: RATE_LIMITED.
        """
        if not identity.known:
            return
        _take(self._principals, identity.subject, "principal")
        if identity.organization_id is not None:
            _take(self._organizations, str(identity.organization_id), "organization")

    def admit_unauthenticated_change(self, address: str, person: str) -> None:
        """Take a call that needs no credentials and is not a read, above all a sign-in.

        Args:
            address: Where it comes from.
            person: The e-mail address that it is about, or an empty string. Only its digest is kept.

        Raises:
            Failure: RATE_LIMITED.
        """
        _take(self._sign_in_addresses, network_of(address), "sign_in_address")
        if person:
            digest = hashlib.blake2b(person.encode(), digest_size=16).hexdigest()
            _take(self._sign_in_people, digest, "sign_in_person")


def network_of(address: str) -> str:
    """Return what an address is counted by: itself, or for IPv6 its /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX_BITS), strict=False))


def _take(buckets: Buckets, name: str, dimension: str) -> None:
    wait_seconds = buckets.take(name)
    if wait_seconds > 0.0:
        metrics.refused(f"rate_{dimension}")
        raise Failure.of(errors.RateLimited(metadata={"limited_by": dimension}, retry_after_seconds=wait_seconds))
