"""The second step: whose key is it, and may it be used here.

The digests of a connection's last key are kept on the connection, so a client that sends the same key again costs no
HMAC. A grant that is held costs one dictionary look-up and no await. Only a miss asks `auth`, see `keys.resolve`.

A key that is not of our own making is looked at only where it begins as imported keys do; everything else that lacks
shape or check sum is refused without asking anybody.
"""

from __future__ import annotations

import asyncio
import hashlib

from tollway.auth.v1 import auth_service_pb2 as auth

from contract import key_format
from edge_proxy.http1.server.protocol import ClientConnection
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.keys.grant import Grant
from edge_proxy.keys.resolve import AuthUnavailable, KeyResolver
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.client_fields import API_KEY_FIELD
from edge_proxy.pipeline.exchange import Exchange
from edge_proxy.pipeline.key_misses import KeyMisses
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.tracing import span
from edge_proxy.pipeline.wire import route_bytes
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.routing.routes import Route


class Authenticator:
    """Finds the grant of the key that a request shows.

    Args:
        peppers: For key digests, newest first.
        keys: Finds grants.
        misses: Bounds what one client address may make `auth` be asked.
        metrics: What is counted.
        decision_deadline_ms: Becomes part of what the limiter is asked.
    """

    def __init__(
        self,
        *,
        peppers: list[bytes],
        keys: KeyResolver,
        misses: KeyMisses,
        metrics: WorkerMetrics,
        decision_deadline_ms: int,
    ) -> None:
        self._peppers = peppers
        self._keys = keys
        self._misses = misses
        self._metrics = metrics
        self._decision_deadline_ms = decision_deadline_ms

    async def authenticate(self, exchange: Exchange, route: Route) -> None:
        """Set the exchange's grant and the bytes that belong to it.

        A key that is valid but may not do this is refused only after both are set: its refusal is recorded.

        Raises:
            Refused: There is no key, it is not valid, or it may not be used here.
        """
        digests = self._digests(exchange.client, exchange.head)
        grant = self._held(digests)
        if grant is None:
            grant = await self._find(exchange, digests)
        if grant is None or grant.state == auth.KEY_STATE_REVOKED:
            raise Refused(problems.KEY_INVALID)
        if grant.expire_time_us and grant.expire_time_us <= exchange.start_us:
            raise Refused(problems.KEY_INVALID, "The API key has expired.")
        exchange.grant = grant
        exchange.wire = route_bytes(grant, route, exchange.head.method, self._decision_deadline_ms)
        authorize(grant, route, exchange.client.peer)

    def _digests(self, client: ClientConnection, head: RequestHead) -> tuple[bytes, ...]:
        """Return the digests of the key that was shown, one per pepper."""
        authorizations = head.values(b"authorization")
        shown = authorizations + head.values(API_KEY_FIELD)
        if not shown:
            raise Refused(problems.KEY_MISSING)
        if len(shown) > 1:
            raise Refused(problems.BAD_REQUEST, "Show one API key, in one field.")
        raw = shown[0]
        memo = client.memo
        if memo is not None and memo[0] == raw:
            return memo[1]
        key = raw
        if authorizations:
            scheme, _, key = raw.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Refused(problems.KEY_MISSING)
        key = key.strip()
        text = key.decode("latin-1")
        if key_format.parse(text) is not None:
            digests = tuple(key_format.digest(text, pepper) for pepper in self._peppers)
        elif self._keys.may_be_imported(key):
            sha256 = hashlib.sha256(key).digest()
            digests = tuple(key_format.imported_digest(sha256, pepper) for pepper in self._peppers)
        else:
            raise Refused(problems.KEY_INVALID)
        client.memo = (raw, digests)
        return digests

    def _held(self, digests: tuple[bytes, ...]) -> Grant | None:
        for digest in digests:
            grant = self._keys.held(digest)
            if grant is not None:
                self._metrics.counters["key_cache_hits"] += 1
                return grant
        return None

    async def _find(self, exchange: Exchange, digests: tuple[bytes, ...]) -> Grant | None:
        """Ask about a key that is not held, if the client's address may have that asked."""
        if not any(self._keys.must_ask(digest) for digest in digests):
            return None
        address = exchange.client.peer
        if not self._misses.take(address):
            raise Refused(problems.TOO_MANY_UNKNOWN_KEYS)
        is_known = True
        try:
            grant = await self._ask(exchange, digests)
            is_known = grant is not None
            return grant
        finally:
            if is_known:
                self._misses.give_back(address)

    async def _ask(self, exchange: Exchange, digests: tuple[bytes, ...]) -> Grant | None:
        self._metrics.counters["key_cache_misses"] += 1
        with span("edge.resolve_key", exchange):
            try:
                found = await asyncio.gather(*(self._keys.find(digest) for digest in digests))
            except AuthUnavailable:
                raise Refused(problems.KEYS_UNKNOWN) from None
        return next((grant for grant in found if grant is not None), None)


def authorize(grant: Grant, route: Route, address: str) -> None:
    """Check that a valid key may be used on a route, from an address.

    Raises:
        Refused: It may not.
    """
    if grant.state != auth.KEY_STATE_ACTIVE:
        raise Refused(problems.ORGANIZATION_SUSPENDED)
    if grant.networks and not grant.allows_address(address):
        raise Refused(problems.ADDRESS_NOT_ALLOWED)
    if route.scopes and not route.scopes <= grant.scopes:
        missing = ", ".join(sorted(route.scopes - grant.scopes))
        raise Refused(problems.SCOPE_MISSING, f"Missing: {missing}.")
