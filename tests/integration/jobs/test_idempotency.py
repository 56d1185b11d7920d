"""First answers are kept with their effect, sealed, per caller, and not for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.database.idempotency import Idempotency, IdempotencyKeyReused, attempt, remove_expired
from mesh.database.pools import Database
from mesh.rpc.errors import InvalidFields
from mesh.secretbox import SecretBox
from tests.support.accounts import DATA_KEY
from tests.support.postgres import TestDatabase

ACME, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture
async def db(database: TestDatabase) -> AsyncIterator[Database]:
    opened = await Database.connect(
        tenant_dsn=database.dsn("auth"), system_dsn=database.dsn("auth_system"), name="i", pool_size_max=5
    )
    yield opened
    await opened.close()


class Mutation:
    """Counts how often it runs."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.clock = ManualClock(datetime(2024, 1, 1, tzinfo=UTC))
        self.idempotency = Idempotency(box=SecretBox({1: DATA_KEY}), clock=self.clock)
        self.runs = 0

    async def call(
        self, *, organization_id: UUID = ACME, principal: str = "ada", name: str = "n", key: str = "k"
    ) -> str:
        request = pb.CreateApiKeyRequest(organization_id=str(organization_id), name=name, idempotency_key=key)

        async def mutate() -> pb.CreateApiKeyResponse:
            self.runs += 1
            if name == "broken":
                raise ZeroDivisionError
            return pb.CreateApiKeyResponse(secret=f"secret {self.runs}")

        asked = attempt(request, organization_id=organization_id, principal=principal)
        async with self.db.tenant(organization_id) as tx:
            return (await self.idempotency.once(tx, asked, pb.CreateApiKeyResponse, mutate)).secret


async def test_a_replay_gets_the_first_answer(db: Database) -> None:
    mutation = Mutation(db)
    assert [await mutation.call() for _ in range(3)] == ["secret 1"] * 3


async def test_callers_and_tenants_do_not_share_keys(db: Database) -> None:
    mutation = Mutation(db)
    answers = [
        await mutation.call(),
        await mutation.call(principal="grace"),
        await mutation.call(organization_id=OTHER),
    ]
    assert answers == ["secret 1", "secret 2", "secret 3"]


async def test_without_a_key_every_call_counts(db: Database) -> None:
    mutation = Mutation(db)
    assert [await mutation.call(key="") for _ in range(2)] == ["secret 1", "secret 2"]


async def test_a_failed_mutation_does_not_use_its_key_up(db: Database) -> None:
    mutation = Mutation(db)
    with pytest.raises(ZeroDivisionError):
        await mutation.call(name="broken")
    assert await mutation.call() == "secret 2"


async def test_another_request_under_the_same_key_is_refused(db: Database) -> None:
    mutation = Mutation(db)
    await mutation.call()
    with pytest.raises(IdempotencyKeyReused):
        await mutation.call(name="else")
    assert mutation.runs == 1


async def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidFields):
        attempt(pb.CreateApiKeyRequest(idempotency_key="x" * 129), organization_id=ACME, principal="ada")


async def test_answers_are_removed_after_a_day_and_not_before(db: Database) -> None:
    mutation = Mutation(db)
    await mutation.call(key="old")
    mutation.clock.advance(86_400)
    await mutation.call(key="new")
    assert await remove_expired(db, mutation.clock) == 0
    mutation.clock.advance(1)
    assert await remove_expired(db, mutation.clock) == 1
    assert await mutation.call(key="new") == "secret 2"
