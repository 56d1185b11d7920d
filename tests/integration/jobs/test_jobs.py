"""Jobs are done once they are committed, tried again when they fail and kept where they are seen when given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from mesh import jobs
from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import worker as worker_module
from tests.support.postgres import TestDatabase

ORGANIZATION = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
IDS = RandomIds()
AT_ONCE = jobs.RetryPolicy(first_seconds=0.01, attempts_max=3)


@pytest.fixture
async def db(database: TestDatabase) -> AsyncIterator[Database]:
    opened = await Database.connect(
        tenant_dsn=database.dsn("auth"), system_dsn=database.dsn("auth_system"), name="jobs", pool_size_max=5
    )
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def working(db: Database, handlers: dict[str, Any], **options: Any) -> AsyncIterator[jobs.Worker]:
    stopping = asyncio.Event()
    worker = jobs.Worker(
        db=db, name="auth", handlers=handlers, clock=SystemClock(), ids=IDS, **{"retry": AT_ONCE, **options}
    )
    task = asyncio.create_task(worker.run(stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await task


async def add(db: Database, kind: str = "greet", **options: Any) -> UUID:
    job_id = IDS.uuid7()
    async with db.tenant(ORGANIZATION) as tx:
        await jobs.enqueue(tx, kind, {"name": "Ada"}, job_id=job_id, organization_id=ORGANIZATION, **options)
    return job_id


async def states(db: Database) -> list[str]:
    async with db.system() as tx:
        return [row["state"] for row in await tx.fetch("SELECT state FROM jobs ORDER BY job_id")]


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.01)


async def test_a_job_runs_with_what_it_was_given(db: Database) -> None:
    seen: list[jobs.Job] = []

    async def greet(job: jobs.Job) -> None:
        seen.append(job)

    async with working(db, {"greet": greet}):
        job_id = await add(db)

        async def done() -> bool:
            return await states(db) == ["done"]

        await until(done)
    (job,) = seen
    assert (job.job_id, job.organization_id, job.payload, job.attempt_count) == (
        job_id,
        ORGANIZATION,
        {"name": "Ada"},
        1,
    )


async def test_a_commit_wakes_the_worker_before_it_polls(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 60.0)
    seen: list[UUID] = []

    async def greet(job: jobs.Job) -> None:
        seen.append(job.job_id)

    async with working(db, {"greet": greet}), asyncio.timeout(60):
        # The first ones may come before the worker listens; without notices none would be done within a minute.
        await add(db)
        while len(seen) < 2:
            await add(db)
            await asyncio.sleep(0.05)


async def test_a_job_of_a_transaction_that_rolls_back_never_was(db: Database) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with db.tenant(ORGANIZATION) as tx:
            await jobs.enqueue(tx, "greet", {}, job_id=IDS.uuid7(), organization_id=ORGANIZATION)
            raise ZeroDivisionError
    assert await states(db) == []


async def test_a_failing_job_is_tried_again_until_it_succeeds(db: Database) -> None:
    attempts: list[int] = []

    async def stumble(job: jobs.Job) -> None:
        attempts.append(job.attempt_count)
        if len(attempts) < 3:
            raise ConnectionError

    async with working(db, {"greet": stumble}):
        await add(db)

        async def done() -> bool:
            return await states(db) == ["done"]

        await until(done)
    assert attempts == [1, 2, 3]


async def test_a_job_that_never_succeeds_becomes_a_dead_letter_and_can_be_put_back(db: Database) -> None:
    given_up: list[UUID] = []
    broken = True

    async def handle(_job: jobs.Job) -> None:
        if broken:
            raise ConnectionError("mail server is away")

    async def note(job: jobs.Job) -> None:
        given_up.append(job.job_id)

    async with working(db, {"greet": handle}, given_up={"greet": note}):
        job_id = await add(db)

        async def dead() -> bool:
            return await states(db) == ["dead"]

        await until(dead)
        assert given_up == [job_id]
        async with db.system() as tx:
            (letter,) = await jobs.dead_letters(tx)
        assert (letter.job_id, letter.attempt_count) == (job_id, 3)
        assert "mail server is away" in (letter.last_error or "")
        broken = False
        async with db.system() as tx:
            assert await jobs.retry_dead_letter(tx, job_id)

        async def done() -> bool:
            return await states(db) == ["done"]

        await until(done)


async def test_a_permanent_failure_is_not_tried_again(db: Database) -> None:
    attempts = 0

    async def refuse(_job: jobs.Job) -> None:
        nonlocal attempts
        attempts += 1
        raise jobs.PermanentFailure("no")

    async with working(db, {"greet": refuse}):
        await add(db)

        async def dead() -> bool:
            return await states(db) == ["dead"]

        await until(dead)
    assert attempts == 1


async def test_a_job_with_a_known_dedupe_key_is_not_added(db: Database) -> None:
    async with db.tenant(ORGANIZATION) as tx:
        added = [
            await jobs.enqueue(
                tx, "greet", {}, job_id=IDS.uuid7(), organization_id=ORGANIZATION, dedupe_key="2024-01-01"
            )
            for _ in range(2)
        ]
    assert added == [True, False]
    assert await states(db) == ["queued"]


async def test_two_workers_do_each_job_once(db: Database) -> None:
    seen: list[UUID] = []

    async def greet(job: jobs.Job) -> None:
        seen.append(job.job_id)
        await asyncio.sleep(0)

    added = [await add(db) for _ in range(100)]
    async with working(db, {"greet": greet}), working(db, {"greet": greet}):

        async def done() -> bool:
            return set(await states(db)) == {"done"}

        await until(done)
    assert sorted(seen) == sorted(added)


async def test_a_job_of_a_dead_worker_is_taken_over(db: Database) -> None:
    job_id = await add(db)
    async with db.system() as tx:
        await tx.execute(
            "UPDATE jobs SET state = 'running', attempt_count = 1, lease_id = $2,"
            " lease_expire_time = now() - interval '1 second' WHERE job_id = $1",
            job_id,
            IDS.uuid7(),
        )
    seen: list[int] = []

    async def greet(job: jobs.Job) -> None:
        seen.append(job.attempt_count)

    async with working(db, {"greet": greet}):
        await until(lambda: seen)
    assert seen == [2]


async def test_a_job_that_kills_every_worker_is_given_up(db: Database) -> None:
    job_id = await add(db)
    async with db.system() as tx:
        await tx.execute("UPDATE jobs SET attempt_count = 3 WHERE job_id = $1", job_id)
    ran = False

    async def greet(_job: jobs.Job) -> None:
        nonlocal ran
        ran = True

    async with working(db, {"greet": greet}):

        async def dead() -> bool:
            return await states(db) == ["dead"]

        await until(dead)
    assert not ran


async def test_a_stopping_worker_hands_back_what_it_cannot_finish(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STOP_GRACE_SECONDS", 0.05)
    running = asyncio.Event()

    async def hang(_job: jobs.Job) -> None:
        running.set()
        await asyncio.Event().wait()

    async with working(db, {"greet": hang}):
        await add(db)
        await asyncio.wait_for(running.wait(), 30)
    async with db.system() as tx:
        row = await tx.fetchrow("SELECT state, attempt_count, lease_id FROM jobs")
    assert tuple(row) == ("queued", 0, None)


async def test_jobs_survive_the_loss_of_every_connection(db: Database, database: TestDatabase) -> None:
    seen: list[UUID] = []

    async def greet(job: jobs.Job) -> None:
        seen.append(job.job_id)

    async with working(db, {"greet": greet}):
        admin = await asyncpg.connect(database.dsn("admin"))
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await admin.close()
        for _ in range(50):
            with contextlib.suppress(Exception):
                job_id = await add(db)
                break
        await until(lambda: seen)
    assert seen == [job_id]


async def test_daily_work_is_added_once_for_all_workers(db: Database) -> None:
    ran: list[str] = []

    async def clean(job: jobs.Job) -> None:
        ran.append(job.payload["day"])

    daily = [jobs.Daily(kind="clean", hour=3)]
    async with (
        working(db, {"clean": clean}, daily=daily) as one,
        working(db, {"clean": clean}, daily=daily) as other,
    ):
        await until(lambda: ran)
        for worker in (one, other):
            await worker._keep_house_once()
    assert await states(db) == ["done"]
    assert len(ran) == 1


async def test_done_jobs_are_removed_after_a_while_and_dead_ones_stay(db: Database) -> None:
    done, dead, fresh = [await add(db) for _ in range(3)]
    async with db.system() as tx:
        old = "now() - interval '8 days'"
        await tx.execute(f"UPDATE jobs SET state = 'done', finish_time = {old} WHERE job_id = $1", done)
        await tx.execute(f"UPDATE jobs SET state = 'dead', finish_time = {old} WHERE job_id = $1", dead)
        await tx.execute("UPDATE jobs SET state = 'done', finish_time = now() WHERE job_id = $1", fresh)
    assert await jobs.remove_finished(db, SystemClock()) == 1
    assert await states(db) == ["dead", "done"]


async def test_the_tenant_role_can_add_jobs_and_see_none(db: Database) -> None:
    await add(db)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.tenant(ORGANIZATION) as tx:
            await tx.fetch("SELECT * FROM jobs")


async def test_a_payload_that_is_too_large_is_refused(db: Database) -> None:
    with pytest.raises(ValueError, match="characters"):
        async with db.tenant(ORGANIZATION) as tx:
            await jobs.enqueue(tx, "greet", {"name": "x" * 70_000}, job_id=IDS.uuid7())
