"""Asks `auth` about digests that are not held: in batches, one call in flight, each digest once.

Whoever asks while a call is in flight waits for the next one; everything that waits then shares it. The queue is
bounded; above the bound the question fails at once, like every other way in which `auth` cannot be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

import grpc.aio
import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import REFRESH_AFTER_SECONDS, KeyCache
from edge_proxy.keys.grant import Grant

BATCH_MAX: Final = 1_000
WAITING_MAX: Final = 50_000
DEADLINE_SECONDS: Final = 2.0

log = structlog.get_logger()


class ResolveKeys(Protocol):
    """The RPC, as a stub offers it."""

    def __call__(self, request: auth.ResolveKeysRequest, *, timeout: float) -> Awaitable[auth.ResolveKeysResponse]:
        """Resolve digests."""
        ...


class AuthUnavailable(Exception):
    """`auth` could not be asked about a key that is not held."""


class KeyResolver:
    """Finds grants, in the cache first.

    Args:
        cache: What is held.
        resolve: The RPC.
    """

    def __init__(self, cache: KeyCache, resolve: ResolveKeys) -> None:
        self._cache = cache
        self._resolve = resolve
        self._waiting: dict[bytes, asyncio.Future[Grant | None]] = {}
        self._in_flight: dict[bytes, asyncio.Future[Grant | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.is_available = True

    def held(self, digest: bytes) -> Grant | None:
        """Return the grant if it is held; an old one is asked for again in the background."""
        grant = self._cache.get(digest)
        if grant is not None and grant.fresh_until < self._loop.time():
            # One question per minute and key while `auth` does not answer.
            grant.fresh_until = self._loop.time() + 60.0
            self._ask(digest)
        return grant

    async def find(self, digest: bytes) -> Grant | None:
        """Return the grant, or None where `auth` does not know the key.

        Raises:
            AuthUnavailable: It is not held and `auth` cannot be asked.
        """
        grant = self.held(digest)
        if grant is not None:
            return grant
        if self._cache.is_unknown(digest, self._loop.time()):
            return None
        return await asyncio.shield(self._ask(digest))

    def _ask(self, digest: bytes) -> asyncio.Future[Grant | None]:
        future = self._in_flight.get(digest) or self._waiting.get(digest)
        if future is not None:
            return future
        if len(self._waiting) >= WAITING_MAX:
            raise AuthUnavailable
        future = self._waiting[digest] = self._loop.create_future()
        # A refresh in the background has nobody to tell.
        future.add_done_callback(_retrieve)
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        # One turn of the loop, so that everything that waits in this tick shares the call.
        await asyncio.sleep(0)
        try:
            while self._waiting:
                digests = list(self._waiting)[:BATCH_MAX]
                self._in_flight = {digest: self._waiting.pop(digest) for digest in digests}
                await self._ask_batch(digests)
        finally:
            self._task = None

    async def _ask_batch(self, digests: list[bytes]) -> None:
        in_flight = self._in_flight
        try:
            answer = await self._resolve(auth.ResolveKeysRequest(digests=digests), timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if self.is_available:
                log.warning("keys_not_resolved", code=error.code().name)
            self.is_available = False
            for future in in_flight.values():
                future.set_exception(AuthUnavailable())
        else:
            self.is_available = True
            self._take(answer, in_flight)
        finally:
            self._in_flight = {}

    def _take(self, answer: auth.ResolveKeysResponse, in_flight: dict[bytes, asyncio.Future[Grant | None]]) -> None:
        now = self._loop.time()
        self._cache.put(answer.grants, fresh_until=now + REFRESH_AFTER_SECONDS)
        known = {grant.digest for grant in answer.grants}
        self._cache.put_unknown([digest for digest in in_flight if digest not in known], now)
        for digest, future in in_flight.items():
            future.set_result(self._cache.get(digest))


def _retrieve(future: asyncio.Future[Grant | None]) -> None:
    if not future.cancelled():
        future.exception()
