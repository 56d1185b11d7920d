"""Data keys rotate: what is sealed under an older one is sealed anew, while people sign in."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
import structlog
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import SystemClock
from mesh.database import resealing
from mesh.database.resealing import Resealed, reseal
from mesh.ids import RandomIds
from mesh.jobs.queue import to_job
from mesh.secretbox import SealBroken, SecretBox
from services.auth import second_factors, signing_keys, store
from services.auth.mail import Mail
from services.auth.resealing import SEALED_TABLES
from tests.support.accounts import DASHBOARD_URL, DATA_KEY, seed_organization
from tests.support.mail_room import MailRoom

NEW_KEY = bytes(range(64, 96))
BOTH = SecretBox({1: DATA_KEY, 2: NEW_KEY})
OLD, NEW = SecretBox({1: DATA_KEY}), SecretBox({2: NEW_KEY})


@pytest.fixture
async def people(auth: Any) -> list[Any]:
    """Three people with second factors and an e-mail each."""
    acme = await seed_organization(auth.database.dsn("auth_system"))
    found = []
    async with auth.db.system() as tx:
        for number in range(3):
            person_id = RandomIds().uuid7()
            await tx.execute(
                "INSERT INTO people (person_id, email, create_time) VALUES ($1, $2, now())", person_id, f"{number}@x.y"
            )
            sealed = OLD.seal(b"s" * 20, second_factors.context(person_id))
            await store.second_factors.put(tx, person_id, sealed, SystemClock().now())
            found.append(person_id)
    request = pb.RequestPasswordResetRequest(email=acme.email)
    await auth.stub.RequestPasswordReset(request)
    room = MailRoom(auth.db)
    async with auth.db.system() as tx:
        row = await tx.fetchrow("SELECT * FROM jobs WHERE kind = 'write_password_reset_email'")
    await room.account_mail.reset_asked(to_job(row))
    return found


async def secret_of(auth: Any, person_id: Any, box: SecretBox) -> bytes:
    async with auth.db.system() as tx:
        factor = await store.second_factors.lock(tx, person_id)
    assert factor is not None
    return box.open(factor.sealed_secret, second_factors.context(person_id))


async def run(auth: Any) -> dict[str, Resealed]:
    return {table.name: await reseal(auth.db, BOTH, table) for table in SEALED_TABLES}


async def test_after_a_run_the_older_key_is_not_needed(
    auth: Any, people: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealing, "ROWS_AT_ONCE_MAX", 2)
    with structlog.testing.capture_logs() as logs:
        done = await run(auth)
    assert done["second_factors"] == Resealed(sealed_count=3, broken_count=0)
    assert done["jobs"] == Resealed(sealed_count=1, broken_count=0)
    # A busy machine may log slow statements as well.
    told = [entry["log_level"] for entry in logs if entry["event"] == resealing.DONE]
    assert told == ["info"] * len(SEALED_TABLES)
    for person_id in people:
        assert await secret_of(auth, person_id, NEW) == b"s" * 20
        with pytest.raises(SealBroken):
            await secret_of(auth, person_id, OLD)
    async with auth.db.system() as tx:
        row = await tx.fetchrow("SELECT * FROM jobs WHERE kind = 'send_email'")
    mail = Mail(box=NEW, ids=RandomIds(), dashboard_url=DASHBOARD_URL)
    assert len(mail.facts_of(to_job(row))["token"]) == 43
    assert done["signing_keys"] == Resealed(sealed_count=1, broken_count=0)
    async with auth.db.system() as tx:
        (key,) = await store.signing_keys.list_all(tx)
    assert len(NEW.open(key.sealed_seed, signing_keys.context(key.key_id))) == 32
    # Nothing is left to do.
    assert {each.sealed_count for each in (await run(auth)).values()} == {0}


async def test_a_row_that_does_not_open_keeps_no_other_from_being_sealed_anew(auth: Any, people: list[Any]) -> None:
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    await admin.execute("UPDATE auth.second_factors SET secret = 'broken' WHERE person_id = $1", people[0])
    await admin.close()
    done = await run(auth)
    assert done["second_factors"] == Resealed(sealed_count=2, broken_count=1)
    assert await secret_of(auth, people[2], NEW) == b"s" * 20


async def test_every_column_that_holds_something_sealed_is_named(auth: Any) -> None:
    """A table with a version of a data key is sealed anew, or lives for a day."""
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    rows = await admin.fetch(
        "SELECT DISTINCT table_name FROM information_schema.columns"
        " WHERE table_schema = 'auth' AND column_name LIKE '%data_key_version%'"
    )
    await admin.close()
    found = {row["table_name"] for row in rows}
    assert found == {table.name for table in SEALED_TABLES} - {"jobs"} | {"idempotency_keys"}
