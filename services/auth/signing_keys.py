"""The keys that session tokens are signed with: in the database, sealed, replaced without a restart.

The first key comes from the environment, at the first start; from then on the table is right, on every replica alike.
A new key is published at once and signs only after `PUBLISHED_SECONDS`, when every verifier has fetched the key set
again by itself (`mesh.rpc.access.KEYS_FRESH_SECONDS`, and the age that the gateway allows to caches of it). A verifier
that meets a key's id before that fetches it at once. The old key goes on verifying until the last token that any
replica can have signed with it has ended; then it is removed by the daily clean-up.

**Replicas.** Each follows the table (a NOTIFY, and every `REFRESH_SECONDS` without one) and picks the signing key by
its clock. One that has read nothing for `RING_SECONDS_MAX` reads the table before it signs. So none signs with a key
whose time is over, even if it heard nothing of a rotation: a key's time ends that much later than its successor's
begins.

**When the database is away**, nothing is signed, because sign-ins and refreshes need it anyway; the key set is still
published as it was last read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.process_tokens import CLOCK_SKEW_SECONDS
from mesh.rpc.tokens import SESSION_SECONDS, SessionSigner, write_jwks
from mesh.secretbox import SecretBox
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import SigningKeyPending, SigningKeysUnavailable
from services.auth.model import SigningKey

CHANNEL: Final = "auth_signing_keys"
SEED_BYTES: Final = 32
PUBLISHED_SECONDS: Final = 10 * 60
REFRESH_SECONDS: Final = 30.0
RING_SECONDS_MAX: Final = 60.0
NEEDED_SECONDS: Final = SESSION_SECONDS + RING_SECONDS_MAX + CLOCK_SKEW_SECONDS

log = structlog.get_logger()


class SigningKeys:
    """Signs with the key whose turn it is, and publishes all that verify. `run` it in the background.

    Args:
        db: Where the keys are; also listened on.
        box: Seals them.
        first_seed: The 32 bytes of the first key, where there is none yet.
        idempotency: Replays of rotations.
        audit: Is told of rotations.
        random_bytes: A cryptographic source of randomness.
        clock: Time.
        ids: Ids of tokens.
    """

    def __init__(
        self,
        *,
        db: Database,
        box: SecretBox,
        first_seed: bytes,
        idempotency: Idempotency,
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._box = box
        self._first_seed = first_seed
        self._idempotency = idempotency
        self._audit = audit
        self._random_bytes = random_bytes
        self._clock = clock
        self._ids = ids
        self._keys: list[SigningKey] = []
        self._signers: dict[str, SessionSigner] = {}
        self._read_at = float("-inf")
        self._loaded = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow the table until told to stop."""
        following = asyncio.create_task(
            self._db.follow(CHANNEL, changed=self._note_change, read_all=self.load, refresh_seconds=REFRESH_SECONDS)
        )
        try:
            await stopping.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def load(self) -> None:
        """Read the keys; where there is none, the one from the environment becomes the first."""
        async with self._db.system() as tx:
            await self._read(tx)
            if not self._keys:
                await self._adopt(tx)
        self._loaded.set()

    async def wait_loaded(self) -> None:
        """Wait until there is a key."""
        await self._loaded.wait()

    async def signer(self, tx: Connection) -> SessionSigner:
        """Return what signs now.

        Args:
            tx: Of `db.system()`; used where the keys were read too long ago.

        Raises:
            SigningKeysUnavailable: None was read since this process has begun.
        """
        if self._clock.monotonic() - self._read_at > RING_SECONDS_MAX:
            await self._read(tx)
        active = [key for key in self._keys if key.active_time <= self._clock.now()]
        if not active:
            raise SigningKeysUnavailable
        return self._signers[active[-1].key_id]

    def jwks_json(self) -> str:
        """Return the public keys that tokens are verified with, as a JSON Web Key Set.

        Raises:
            SigningKeysUnavailable: None was read since this process has begun.
        """
        if not self._keys:
            raise SigningKeysUnavailable
        now = self._clock.now()
        return write_jwks(
            [
                self._signers[key.key_id].public_key
                for key in self._keys
                if key.retire_time is None or key.retire_time > now
            ]
        )

    async def rotate(self, asked: Mutation[SigningKey, Answer]) -> Answer:
        """Publish a new key that signs a little later.

        Raises:
            SigningKeyPending: There is one that does not sign yet.
        """
        async with self._db.system() as tx:
            answer = await self._idempotency.idempotent(tx, asked, self._rotate)
        await self.load()
        return answer

    async def _rotate(self, tx: Connection) -> SigningKey:
        await store.signing_keys.lock(tx)
        newest, now = (await store.signing_keys.list_all(tx))[-1], self._clock.now()
        if newest.active_time > now:
            raise SigningKeyPending
        key = self._seal(self._random_bytes(SEED_BYTES), now + timedelta(seconds=PUBLISHED_SECONDS))
        await store.signing_keys.retire(tx, key.active_time + timedelta(seconds=NEEDED_SECONDS))
        await store.signing_keys.insert(tx, key, now)
        await self._audit.note(
            tx,
            organization_id=None,
            action="signing_key.rotate",
            resource=f"signing_key/{key.key_id}",
            before={"key_id": newest.key_id},
            after={"key_id": key.key_id, "active_time": key.active_time.isoformat()},
        )
        return key

    async def _adopt(self, tx: Connection) -> None:
        await store.signing_keys.lock(tx)
        # Another replica may have been first.
        if not await store.signing_keys.list_all(tx):
            key = self._seal(self._first_seed, self._clock.now())
            await store.signing_keys.insert(tx, key, key.active_time)
            log.info("signing_key_adopted", key_id=key.key_id)
        await self._read(tx)

    async def _note_change(self, _notices: frozenset[str]) -> None:
        await self.load()

    async def _read(self, tx: Connection) -> None:
        keys = await store.signing_keys.list_all(tx)
        self._signers = {key.key_id: self._signers.get(key.key_id) or self._open(key) for key in keys}
        self._keys = keys
        self._read_at = self._clock.monotonic()

    def _open(self, key: SigningKey) -> SessionSigner:
        seed = self._box.open(key.sealed_seed, context(key.key_id))
        return SessionSigner(seed=seed, clock=self._clock, ids=self._ids)

    def _seal(self, seed: bytes, active_time: datetime) -> SigningKey:
        signer = SessionSigner(seed=seed, clock=self._clock, ids=self._ids)
        return SigningKey(
            key_id=signer.key_id,
            public_key=signer.public_key.public_bytes_raw(),
            sealed_seed=self._box.seal(seed, context(signer.key_id)),
            active_time=active_time,
            retire_time=None,
        )


async def remove_retired(db: Database, clock: Clock) -> int:
    """Remove keys that verify nothing any more and return how many there were; the daily clean-up."""
    async with db.system() as tx:
        return await store.signing_keys.remove_retired(tx, before=clock.now())


def context(key_id: str) -> bytes:
    """Return what a sealed seed is bound to."""
    return f"signing_key\0{key_id}".encode()
