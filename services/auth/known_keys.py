"""The grants of keys that this process has read, so that a question per request costs no query.

`KeyChanges` says what changes, in this process as it says it to every edge, so what is held is right to within a
second. While it says nothing (its listener lost the database, or is about to start), nothing that is held is believed
for longer than `UNHEARD_SECONDS`: the tables are asked. Where they cannot be asked either, what is held goes on
serving: to refuse every customer is worse than to serve one whose key was revoked during the outage. Edges do the same.

Questions to the tables go in batches, one query at a time and each digest once, and everything that waits shares the
next. A digest that nobody has is remembered for `REFUSED_SECONDS`. Grants have versions: an older one never replaces a
newer one. "Nobody has it" has no version, so it counts only where nothing was told of the digest meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from contract.key_prefixes import Prefixes
from mesh.clock import Clock
from mesh.database.pools import Database, DatabaseUnavailable
from mesh.rpc.errors import RpcError
from services.auth import store
from services.auth.key_changes import KeyChanges
from services.auth.model import KeyGrant, KeyPrefixes

GRANTS_MAX: Final = 200_000
REFUSED_MAX: Final = 100_000
REFUSED_SECONDS: Final = 10.0
UNHEARD_SECONDS: Final = 1.0
SILENCE_SECONDS_MAX: Final = 3.0
BATCH_MAX: Final = 1_000
WAITING_MAX: Final = 50_000
FOLLOW_AGAIN_SECONDS: Final = 0.2

log = structlog.get_logger()


class KnownKeys:
    """Finds the grants of digests. `run` it in the background.

    Args:
        db: Where keys are.
        key_changes: Says what changes; must be running.
        clock: Time.
    """

    def __init__(self, *, db: Database, key_changes: KeyChanges, clock: Clock) -> None:
        self._db = db
        self._key_changes = key_changes
        self._clock = clock
        self._grants: dict[bytes, tuple[KeyGrant, float]] = {}
        self._refused: dict[bytes, float] = {}
        self._heard_at: float | None = None
        self._waiting: dict[bytes, asyncio.Future[KeyGrant | None]] = {}
        self._in_flight: dict[bytes, asyncio.Future[KeyGrant | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._prefixes = Prefixes()

    @property
    def is_told(self) -> bool:
        """Tell whether changes are heard, so that what is held is right to within a second."""
        return self._heard_at is not None and self._clock.monotonic() - self._heard_at < SILENCE_SECONDS_MAX

    def held(self, digest: bytes) -> KeyGrant | None:
        """Return a grant that can be believed without asking."""
        found = self._grants.get(digest)
        if found is None:
            return None
        grant, read_at = found
        if self.is_told or self._clock.monotonic() - read_at < UNHEARD_SECONDS:
            return grant
        return None

    def must_ask(self, digest: bytes) -> bool:
        """Tell whether nothing is known of a digest, so that `find` asks the tables."""
        return self.held(digest) is None and not self._is_refused(digest)

    async def find(self, digest: bytes) -> KeyGrant | None:
        """Return the grant of a digest; None where nobody has such a key.

        Raises:
            DatabaseUnavailable: It is not held and the tables cannot be asked, or too many ask.
        """
        grant = self.held(digest)
        if grant is not None or self._is_refused(digest):
            return grant
        try:
            return await asyncio.shield(self._ask(digest))
        except RpcError as error:
            found = self._grants.get(digest)
            if found is None:
                raise DatabaseUnavailable(repr(error)) from error
            return found[0]

    def may_be_imported(self, key: str) -> bool:
        """Tell whether a key begins as imported keys do."""
        return self._prefixes.begin(key.encode("latin-1", "replace"))

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow the changes until told to stop."""
        following = asyncio.ensure_future(self._follow())
        try:
            await stopping.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except RpcError as error:
                if self._heard_at is not None:
                    log.warning("known_keys_not_told", reason=error.reason())
            self._heard_at = None
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)

    async def _follow_once(self) -> None:
        seen: set[bytes] = set()
        is_snapshot = True
        async for changes, ends_snapshot in self._key_changes.watch():
            for prefixes in (change for change in changes if isinstance(change, KeyPrefixes)):
                self._prefixes = Prefixes(prefixes.prefixes)
            grants = [change for change in changes if isinstance(change, KeyGrant)]
            self._put(grants)
            if is_snapshot:
                seen.update(grant.digest for grant in grants)
            if ends_snapshot:
                # What the snapshot leaves out was revoked while nobody listened, or is one question away.
                self._grants = {digest: held for digest, held in self._grants.items() if digest in seen}
                self._refused.clear()
                is_snapshot = False
            if not is_snapshot:
                self._heard_at = self._clock.monotonic()

    def _put(self, grants: Iterable[KeyGrant]) -> None:
        now = self._clock.monotonic()
        for grant in grants:
            held = self._grants.pop(grant.digest, None)
            if held is not None and held[0].version > grant.version:
                self._grants[grant.digest] = held
                continue
            self._grants[grant.digest] = (grant, now)
            self._refused.pop(grant.digest, None)
        while len(self._grants) > GRANTS_MAX:
            self._grants.pop(next(iter(self._grants)))

    def _is_refused(self, digest: bytes) -> bool:
        until = self._refused.get(digest)
        return until is not None and until > self._clock.monotonic()

    def _ask(self, digest: bytes) -> asyncio.Future[KeyGrant | None]:
        future = self._in_flight.get(digest) or self._waiting.get(digest)
        if future is not None:
            return future
        if len(self._waiting) >= WAITING_MAX:
            raise DatabaseUnavailable("too many questions wait")
        future = self._waiting[digest] = asyncio.get_running_loop().create_future()
        # Whoever asked may be gone by the time of the answer.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_all())
        return future

    async def _ask_all(self) -> None:
        # One turn of the loop, so that everything that waits in this tick shares the query.
        await asyncio.sleep(0)
        try:
            while self._waiting:
                digests = list(self._waiting)[:BATCH_MAX]
                self._in_flight = {digest: self._waiting.pop(digest) for digest in digests}
                await self._ask_batch(digests)
        finally:
            self._asking = None

    async def _ask_batch(self, digests: list[bytes]) -> None:
        asked, before = self._in_flight, {digest: self._grants.get(digest) for digest in digests}
        try:
            async with self._db.system() as tx:
                grants = await store.keys.find_grants(tx, digests)
        except Exception as error:
            for future in asked.values():
                future.set_exception(error if isinstance(error, RpcError) else DatabaseUnavailable(repr(error)))
            if not isinstance(error, RpcError):
                log.exception("known_keys_not_read")
        else:
            self._take(grants, asked, before)
        finally:
            self._in_flight = {}

    def _take(
        self,
        grants: Sequence[KeyGrant],
        asked: dict[bytes, asyncio.Future[KeyGrant | None]],
        before: dict[bytes, tuple[KeyGrant, float] | None],
    ) -> None:
        self._put(grants)
        known = {grant.digest for grant in grants}
        until = self._clock.monotonic() + REFUSED_SECONDS
        for digest, future in asked.items():
            if digest not in known and self._grants.get(digest) is before[digest]:
                self._grants.pop(digest, None)
                self._refused.pop(digest, None)
                self._refused[digest] = until
            found = self._grants.get(digest)
            future.set_result(found[0] if found else None)
        while len(self._refused) > REFUSED_MAX:
            self._refused.pop(next(iter(self._refused)))
