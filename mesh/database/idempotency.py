"""Replays of mutations: the same request with the same idempotency key gets the first answer again.

A key is reserved by an INSERT in the transaction of the mutation itself, so key and effect are committed or rolled
back together. Two requests with the same key at the same time serialise on that row: the second waits at its INSERT
until the first has committed, then finds the first's answer. A key belongs to one caller and one RPC of one
organization; with another request it is refused rather than answered wrongly.

Answers may hold secrets (a new API key), so they are stored sealed. They are kept for a day; after that a replay is a
new request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar, TypeVarTuple
from uuid import UUID

from google.protobuf.message import Message

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.rpc.errors import Aborted, InvalidArgument, Violations
from mesh.secretbox import Sealed, SecretBox

KEY_LENGTH_MAX: Final = 128
KEPT: Final = timedelta(days=1)
REMOVED_AT_ONCE_MAX: Final = 10_000

_RESERVE: Final = """
INSERT INTO idempotency_keys (organization_id, principal, method, idempotency_key, request_hash, create_time)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO NOTHING
RETURNING true
"""
_FIND: Final = """
SELECT request_hash, data_key_version, response FROM idempotency_keys
WHERE organization_id = $1 AND principal = $2 AND method = $3 AND idempotency_key = $4
"""
_ANSWER: Final = """
UPDATE idempotency_keys SET data_key_version = $5, response = $6
WHERE organization_id = $1 AND principal = $2 AND method = $3 AND idempotency_key = $4
"""
_REMOVE: Final = """
DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_keys WHERE create_time < $1 ORDER BY create_time LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""

Answer = TypeVar("Answer", bound=Message)
Result = TypeVar("Result")
Values = TypeVarTuple("Values")


class IdempotencyKeyReused(InvalidArgument):
    """This idempotency key was used with another request; choose a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request that may have come before."""

    organization_id: UUID
    principal: str
    method: str
    key: str
    request_hash: bytes

    @property
    def identity(self) -> tuple[UUID, str, str, str]:
        """Return the primary key of the attempt's row."""
        return self.organization_id, self.principal, self.method, self.key

    @property
    def context(self) -> bytes:
        """Return what a sealed answer is bound to."""
        return "\0".join(str(part) for part in self.identity).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation(Generic[Result, Answer]):
    """An attempt at a mutation, and how its result becomes the answer that the caller gets and a replay gets again."""

    attempt: Attempt
    answer_type: type[Answer]
    to_answer: Callable[[Result], Answer]


def attempt(request: Message, *, organization_id: UUID, principal: str) -> Attempt:
    """Describe a request that carries an `idempotency_key` field.

    Raises:
        InvalidFields: The key is too long or not printable.
    """
    key = str(getattr(request, "idempotency_key"))  # noqa: B009 - not every message has the field
    violations = Violations()
    right = len(key) <= KEY_LENGTH_MAX and key.isprintable()
    violations.check(right, "idempotency_key", f"must have 1 to {KEY_LENGTH_MAX} printable characters")
    violations.raise_if_any()
    return Attempt(
        organization_id=organization_id,
        principal=principal,
        method=request.DESCRIPTOR.full_name,
        key=key,
        request_hash=hashlib.sha256(request.SerializeToString(deterministic=True)).digest(),
    )


def mutation(
    request: Message,
    *,
    organization_id: UUID,
    principal: str,
    answer_type: type[Answer],
    to_answer: Callable[[Result], Answer],
) -> Mutation[Result, Answer]:
    """Describe a mutation that carries an `idempotency_key` field.

    Args:
        request: As it came.
        organization_id: Whose it is.
        principal: Who asks; another caller's key is another key.
        answer_type: The message that the RPC answers with.
        to_answer: Makes that message of what the change returns.

    Raises:
        InvalidFields: The key is too long or not printable.
    """
    asked = attempt(request, organization_id=organization_id, principal=principal)
    return Mutation(attempt=asked, answer_type=answer_type, to_answer=to_answer)


class Idempotency:
    """Answers replays of one service's mutations.

    Args:
        box: Seals stored answers.
        clock: Time of reservation.
    """

    def __init__(self, *, box: SecretBox, clock: Clock) -> None:
        self._box = box
        self._clock = clock

    async def once(
        self, tx: Connection, attempt: Attempt, answer_type: type[Answer], mutate: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Run a mutation unless it has run before, and return its first answer.

        Args:
            tx: The mutation's own transaction, of the tenant role.
            attempt: The request; without a key it simply runs.
            answer_type: The message that the RPC answers with.
            mutate: Writes within `tx` and returns the answer.

        Raises:
            IdempotencyKeyReused: The key came before with another request.
        """
        if not attempt.key:
            return await mutate()
        reserved = await tx.fetchval(_RESERVE, *attempt.identity, attempt.request_hash, self._clock.now())
        if not reserved:
            return await self._first_answer(tx, attempt, answer_type)
        answer = await mutate()
        sealed = self._box.seal(answer.SerializeToString(), attempt.context)
        await tx.execute(_ANSWER, *attempt.identity, sealed.key_version, sealed.ciphertext)
        return answer

    async def idempotent(
        self,
        tx: Connection,
        mutation: Mutation[Result, Answer],
        change: Callable[[Connection, *Values], Awaitable[Result]],
        *values: *Values,
    ) -> Answer:
        """Make a change unless it was made before, and return the answer, the first one in either case.

        Args:
            tx: The change's own transaction, of the tenant role.
            mutation: The request, and how its answer is made.
            change: Writes within `tx`.
            values: What `change` is called with, behind `tx`.

        Raises:
            IdempotencyKeyReused: The key came before with another request.
        """

        async def answer() -> Answer:
            return mutation.to_answer(await change(tx, *values))

        return await self.once(tx, mutation.attempt, mutation.answer_type, answer)

    async def _first_answer(self, tx: Connection, attempt: Attempt, answer_type: type[Answer]) -> Answer:
        row = await tx.fetchrow(_FIND, *attempt.identity)
        # The clean-up may have removed it since; the caller's next attempt then runs.
        if row is None:
            raise Aborted("the first answer has just been removed")
        if row["request_hash"] != attempt.request_hash:
            raise IdempotencyKeyReused
        sealed = Sealed(key_version=row["data_key_version"], ciphertext=row["response"])
        return answer_type.FromString(self._box.open(sealed, attempt.context))


async def remove_expired(db: Database, clock: Clock) -> int:
    """Remove answers that are older than `KEPT` and return how many there were; the daily clean-up."""
    removed = 0
    while True:
        async with db.system() as tx:
            status = await tx.execute(_REMOVE, clock.now() - KEPT, REMOVED_AT_ONCE_MAX)
        count = int(str(status).rpartition(" ")[2])
        removed += count
        if count < REMOVED_AT_ONCE_MAX:
            return removed
