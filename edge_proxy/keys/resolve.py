"""Asks `auth` about digests that are not held: in batches, one call in flight, each digest once.

Whoever asks while a call is in flight waits for the next one; everything that waits then shares it. The queue is
bounded; above the bound the question fails at once, like every other way in which `auth` cannot be asked.

An answer says what was so when `auth` read it. Where a snapshot of the watch was completed meanwhile, which may be
newer and no longer name the key, the question is asked again. Grants carry versions, and "unknown" counts only where
nothing was pushed meanwhile.

A revoked key takes the same way as one that `auth` does not know: a question, and then ten seconds of memory. Whoever
tries keys cannot tell the two apart by time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, Protocol

import grpc.aio
import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.cache import GRANT_SECONDS, REFRESH_AFTER_SECONDS, KeyCache
from edge_proxy.keys.grant import Grant
from edge_proxy.keys.uses import NOTE_SECONDS, KeyUses

BATCH_MAX: Final = 1_000
WAITING_MAX: Final = 50_000
DEADLINE_SECONDS: Final = 2.0
ASK_AGAIN_SECONDS: Final = 60.0

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
        uses: Is told, now and then, that a key is used.
    """

    def __init__(self, cache: KeyCache, resolve: ResolveKeys, uses: KeyUses) -> None:
        self._cache = cache
        self._resolve = resolve
        self._uses = uses
        self._waiting: dict[bytes, asyncio.Future[Grant | None]] = {}
        self._in_flight: dict[bytes, asyncio.Future[Grant | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.is_available = True

    def may_be_imported(self, key: bytes) -> bool:
        """Tell whether a key of a foreign shape begins as imported keys do."""
        return self._cache.prefixes.begin(key)

    def held(self, digest: bytes) -> Grant | None:
        """Return a grant that can be used at once; one that is due is asked for again in the background.

        A revoked grant is not returned, and neither is one past its time while `auth` answers: `find` waits for those.
        """
        grant = self._cache.get(digest)
        if grant is None or grant.state == auth.KEY_STATE_REVOKED:
            return None
        now = self._loop.time()
        return grant if now < grant.look_after else self._look_after(grant, now)

    def _look_after(self, grant: Grant, now: float) -> Grant | None:
        """Note a grant's use and ask for it again, as far as either is due."""
        overdue_seconds = now - grant.fresh_until
        if overdue_seconds > 0:
            if self.is_available and overdue_seconds > GRANT_SECONDS - REFRESH_AFTER_SECONDS:
                return None
            # One question per minute and key while `auth` does not answer.
            grant.fresh_until = now + ASK_AGAIN_SECONDS
            with contextlib.suppress(AuthUnavailable):
                self._ask(grant.digest)
        self._uses.note(grant)
        grant.look_after = min(now + NOTE_SECONDS, grant.fresh_until)
        return grant

    def must_ask(self, digest: bytes) -> bool:
        """Tell whether `find` has to ask `auth` about a digest that is not held."""
        return not self._cache.is_refused(digest, self._loop.time())

    async def find(self, digest: bytes) -> Grant | None:
        """Return the grant, or None where `auth` does not know the key or has revoked it.

        Raises:
            AuthUnavailable: It is not held and `auth` cannot be asked.
        """
        grant = self.held(digest)
        if grant is not None:
            return grant
        if self._cache.is_refused(digest, self._loop.time()):
            return None
        try:
            answer = await asyncio.shield(self._ask(digest))
        except AuthUnavailable:
            answer = self._cache.get(digest)
            if answer is None:
                raise
        if answer is None or answer.state == auth.KEY_STATE_REVOKED:
            return None
        self._uses.note(answer)
        return answer

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
        snapshots = self._cache.snapshots
        held = {digest: self._cache.get(digest) for digest in digests}
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
            if self._cache.snapshots == snapshots:
                self._take(answer, in_flight, held)
            else:
                self._waiting.update(in_flight)
        finally:
            self._in_flight = {}

    def _take(
        self,
        answer: auth.ResolveKeysResponse,
        in_flight: dict[bytes, asyncio.Future[Grant | None]],
        held: dict[bytes, Grant | None],
    ) -> None:
        now = self._loop.time()
        known = {grant.digest for grant in answer.grants}
        unknown = [digest for digest in in_flight if digest not in known and self._cache.get(digest) is held[digest]]
        self._cache.put(answer.grants, fresh_until=now + REFRESH_AFTER_SECONDS)
        self._cache.put_unknown(unknown, now)
        for digest, future in in_flight.items():
            found = self._cache.get(digest)
            if found is not None and found.state == auth.KEY_STATE_REVOKED:
                self._cache.refuse(digest, now)
            future.set_result(found)


def _retrieve(future: asyncio.Future[Grant | None]) -> None:
    if not future.cancelled():
        future.exception()
