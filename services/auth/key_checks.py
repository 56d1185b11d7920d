"""May a request pass with the API key that it shows? What edges decide for themselves, for gateways that are not ours.

The rules are those of our edge, in its order, with its problems (`contract.problems`):

1. one key, in one field: `Authorization: Bearer …` or `X-Api-Key`; never in the path or the query
2. shape and check sum, or what imported keys begin with, without asking anybody
3. known and not revoked, not expired
4. the organization is not suspended
5. the client's address is one that the key may be used from
6. the key has the scopes that the route needs

When a key was used is noted and stored once a minute (`key_uses`); a process that dies takes a minute's notes along.

A key that has to be looked up is taken from a budget of the client's address first and given back when it is known:
whoever knows the format can make as many keys as they like, and each would cost a place in a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from contract import key_format, problems
from contract.problems import Problem
from mesh.buckets import Buckets
from mesh.clock import Clock
from mesh.database.pools import DatabaseUnavailable
from mesh.rpc.errors import RpcError
from services.auth.key_uses import KeyUses
from services.auth.known_keys import KnownKeys
from services.auth.model import KeyGrant, KeyState
from services.auth.throttle import network_of

MISSES_BURST: Final = 100
MISSES_PER_SECOND: Final = 10.0
ADDRESSES_MAX: Final = 20_000
NETWORK_LISTS_MAX: Final = 10_000
USES_INTERVAL_SECONDS: Final = 60.0
USES_MAX: Final = 200_000
USES_PER_STATEMENT_MAX: Final = 10_000
_BEARER: Final = "bearer"
_NOBODY: Final = ipaddress.ip_network("0.0.0.0/32")

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a request shows.

    Args:
        authorizations: The values of its `Authorization` fields.
        api_keys: The values of its `X-Api-Key` fields.
        address: Of the client, as the gateway saw it.
        scopes: What the route needs.
    """

    authorizations: Sequence[str]
    api_keys: Sequence[str]
    address: str
    scopes: frozenset[str] = frozenset()


class Refused(Exception):
    """The request may not pass.

    Args:
        problem: What kind of refusal.
        detail: What is wrong with this request; shown to the client.
    """

    def __init__(self, problem: Problem, detail: str = "") -> None:
        super().__init__(problem.name)
        self.problem = problem
        self.detail = detail


class KeyChecks:
    """Checks what requests show.

    Args:
        known: Finds grants.
        uses: Stores when keys were last used.
        peppers: Of digests, by version.
        clock: Time.
    """

    def __init__(self, *, known: KnownKeys, uses: KeyUses, peppers: Mapping[int, bytes], clock: Clock) -> None:
        self._known = known
        self._uses = uses
        self._used: dict[tuple[UUID, UUID], float] = {}
        self._peppers = [peppers[version] for version in sorted(peppers, reverse=True)]
        self._clock = clock
        self._misses = Buckets(
            MISSES_BURST,
            monotonic=clock.monotonic,
            period_seconds=MISSES_BURST / MISSES_PER_SECOND,
            buckets_max=ADDRESSES_MAX,
        )

    async def check(self, shown: Shown) -> KeyGrant:
        """Return the grant of a request that may pass.

        Raises:
            Refused: It may not, or that cannot be known right now.
        """
        digests = self._digests(read_key(shown))
        grant = next((found for found in map(self._known.held, digests) if found is not None), None)
        if grant is None:
            grant = await self._find(digests, shown.address)
        if grant is None or grant.state is KeyState.REVOKED:
            raise Refused(problems.KEY_INVALID)
        if grant.expire_time is not None and grant.expire_time <= self._clock.now():
            raise Refused(problems.KEY_INVALID, "The API key has expired.")
        authorize(grant, shown)
        if len(self._used) < USES_MAX:
            self._used[grant.organization_id, grant.api_key_id] = self._clock.monotonic()
        return grant

    async def run(self, stopping: asyncio.Event) -> None:
        """Store uses once a minute and when told to stop."""
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(USES_INTERVAL_SECONDS):
                    await stopping.wait()
            await self.store_uses()

    async def store_uses(self) -> None:
        """Store what was noted; what cannot be stored is kept."""
        used, self._used = self._used, {}
        now = self._clock.monotonic()
        uses = [(*key, timedelta(seconds=now - used_at)) for key, used_at in used.items()]
        try:
            for at in range(0, len(uses), USES_PER_STATEMENT_MAX):
                await self._uses.record(uses[at : at + USES_PER_STATEMENT_MAX])
        except RpcError as error:
            log.warning("key_uses_not_stored", reason=error.reason(), uses=len(uses))
            self._used = {**used, **self._used}

    def _digests(self, key: str) -> list[bytes]:
        """Return what a key is looked up by, one per pepper."""
        if key_format.parse(key) is not None:
            return [key_format.digest(key, pepper) for pepper in self._peppers]
        if self._known.may_be_imported(key):
            sha256 = hashlib.sha256(key.encode("latin-1", "replace")).digest()
            return [key_format.imported_digest(sha256, pepper) for pepper in self._peppers]
        raise Refused(problems.KEY_INVALID)

    async def _find(self, digests: Sequence[bytes], address: str) -> KeyGrant | None:
        to_ask = [digest for digest in digests if self._known.must_ask(digest)]
        if not to_ask:
            return None
        source = network_of(address)
        if self._misses.take(source):
            raise Refused(problems.TOO_MANY_UNKNOWN_KEYS)
        is_unknown = False
        try:
            for digest in to_ask:
                grant = await self._known.find(digest)
                if grant is not None:
                    return grant
            is_unknown = True
        except DatabaseUnavailable:
            raise Refused(problems.KEYS_UNKNOWN) from None
        finally:
            if not is_unknown:
                self._misses.give_back(source)
        return None


def read_key(shown: Shown) -> str:
    """Return the key that a request shows.

    Raises:
        Refused: It shows none, or several.
    """
    fields = [*shown.authorizations, *shown.api_keys]
    if not fields:
        raise Refused(problems.KEY_MISSING)
    if len(fields) > 1:
        raise Refused(problems.BAD_REQUEST, "Show one API key, in one field.")
    if shown.api_keys:
        return fields[0].strip()
    scheme, _, key = fields[0].partition(" ")
    if scheme.lower() != _BEARER:
        raise Refused(problems.KEY_MISSING)
    return key.strip()


def authorize(grant: KeyGrant, shown: Shown) -> None:
    """Check that a valid key may be used here.

    Raises:
        Refused: It may not.
    """
    if grant.state is not KeyState.ACTIVE:
        raise Refused(problems.ORGANIZATION_SUSPENDED)
    if grant.allowed_ips and not allows_address(grant.allowed_ips, shown.address):
        raise Refused(problems.ADDRESS_NOT_ALLOWED)
    missing = shown.scopes - set(grant.scopes)
    if missing:
        raise Refused(problems.SCOPE_MISSING, f"Missing: {', '.join(sorted(missing))}.")


def allows_address(allowed_ips: tuple[str, ...], address: str) -> bool:
    """Tell whether an address is in one of the networks; one that cannot be read is in none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in _networks(allowed_ips))


@functools.lru_cache(NETWORK_LISTS_MAX)
def _networks(allowed_ips: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(_network(text) for text in allowed_ips)


def _network(text: str) -> Network:
    """Read a network; one that cannot be read allows nobody, because it was meant to restrict."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return _NOBODY
