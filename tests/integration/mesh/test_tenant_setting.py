"""The tenant of a transaction never reaches the next user of its connection, however the transaction ends.

One connection in the pool, so that whoever comes next gets the one that was just given back. What happens in between
is drawn by Hypothesis: transactions that end well, fail, time out, lose a deadlock, are cancelled after any statement
or in any await, lose their connection; and what a pooler such as PgBouncer does between two users, RESET ALL and
DISCARD ALL. The driver resets connections as well; here it does not, so that the transaction alone has to forget its
tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import strategies as st

from mesh.database.pools import Database, DatabaseBusy, DatabaseUnavailable
from tests.support.examples import drawn

ONE, TWO = UUID(int=1), UUID(int=2)
TABLE = """
CREATE TABLE ratelimit.notes (organization_id uuid NOT NULL, number int NOT NULL);
ALTER TABLE ratelimit.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE ratelimit.notes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ratelimit.notes TO tollway_ratelimit
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON ratelimit.notes TO tollway_ratelimit_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON ratelimit.notes TO tollway_ratelimit, tollway_ratelimit_system;
"""
STATEMENTS = (
    "SELECT count(*) FROM notes",
    "UPDATE notes SET number = number + 1",
    "SELECT organization_id FROM notes FOR UPDATE",
    "INSERT INTO notes SELECT organization_id, 7 FROM notes LIMIT 1",
)
STORIES_COUNT = 60
CANCELLED_IN_TURNS_MAX = 40
FAILURES = (ZeroDivisionError, asyncpg.PostgresError, DatabaseBusy, DatabaseUnavailable)

ways = st.one_of(
    st.just(("well", 0)),
    st.tuples(st.sampled_from(["fails", "cancelled after statements"]), st.integers(0, len(STATEMENTS))),
    st.tuples(st.just("cancelled after turns"), st.integers(0, CANCELLED_IN_TURNS_MAX)),
    st.sampled_from([("broken statement", 0), ("times out", 0), ("deadlocked", 0), ("cut", 0)]),
    st.sampled_from([("RESET ALL", 0), ("DISCARD ALL", 0)]),
)
stories = st.lists(
    st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from(["tenant", "read", "system"]), ways), min_size=2, max_size=6
)


@pytest.fixture
async def db(database: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(asyncpg.Connection, "get_reset_query", lambda _: "")
    owner = await asyncpg.connect(database.dsn("owner"))
    await owner.execute(TABLE)
    await owner.close()
    admin = await asyncpg.connect(database.dsn("admin"))
    for role in ("tollway_ratelimit", "tollway_ratelimit_system"):
        await admin.execute(f'ALTER ROLE {role} IN DATABASE "{database.name}" SET deadlock_timeout = 20')
    await admin.close()
    db = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"), system_dsn=database.dsn("ratelimit_system"), name="test", pool_size_max=1
    )
    async with db.system() as tx:
        await tx.execute("INSERT INTO notes VALUES ($1, 1), ($1, 2), ($2, 1), ($2, 2)", ONE, TWO)
    yield db
    await db.close()


class Story:
    """Transactions one after the other, each with its ending."""

    def __init__(self, db: Database, admin: asyncpg.Connection) -> None:
        self.db = db
        self.admin = admin

    def begin(self, tenant: UUID, kind: str) -> Any:
        return self.db.system() if kind == "system" else getattr(self.db, kind)(tenant)

    async def live(self, tenant: UUID, kind: str, way: tuple[str, int]) -> None:
        """One transaction, or what a pooler does."""
        name, number = way
        if name in {"RESET ALL", "DISCARD ALL"}:
            await self.pooler(name)
            return
        task = asyncio.ensure_future(self.transaction(tenant, kind, name, number))
        if name == "cancelled after turns":
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, *FAILURES):
            await task

    async def pooler(self, statement: str) -> None:
        pool = self.db._tenant_pool._pool
        connection = await pool.acquire()
        try:
            await connection.execute("SELECT set_config('tollway.organization_id', $1, false)", str(ONE))
            await connection.execute(statement)
            # DISCARD takes asyncpg's prepared statements along.
            await connection.reload_schema_state()
        finally:
            await pool.release(connection)

    async def transaction(self, tenant: UUID, kind: str, name: str, number: int) -> None:
        async with self.begin(tenant, kind) as tx:
            for at, statement in enumerate(STATEMENTS):
                if at == number and name == "fails":
                    raise ZeroDivisionError
                if at == number and name == "cancelled after statements":
                    asyncio.current_task().cancel()
                # A reading transaction only reads.
                await tx.execute(statement if kind != "read" else STATEMENTS[0])
            await self.end(tx, name)

    async def end(self, tx: Any, name: str) -> None:
        match name:
            case "broken statement":
                await tx.execute("SELECT 1 / 0")
            case "times out":
                await tx.execute("SET LOCAL statement_timeout = 20")
                await tx.execute("SELECT pg_sleep(10)")
            case "deadlocked":
                await self.deadlock(tx)
            case "cut":
                pid = await tx.fetchval("SELECT pg_backend_pid()")
                await self.admin.execute("SELECT pg_terminate_backend($1)", pid)
                await tx.execute("SELECT 1")

    async def deadlock(self, tx: Any) -> None:
        """Loses a deadlock with another session: it waits for longer, so this one is found."""
        await tx.execute("SELECT pg_advisory_xact_lock(1)")
        other = self.admin.transaction()
        await other.start()
        await self.admin.execute("SELECT pg_advisory_xact_lock(2)")
        waiting = asyncio.ensure_future(self.admin.execute("SELECT pg_advisory_xact_lock(1)"))
        try:
            await asyncio.sleep(0)
            await tx.execute("SELECT pg_advisory_xact_lock(2)")
        finally:
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            with contextlib.suppress(asyncpg.PostgresError):
                await waiting
            await other.rollback()

    async def check(self) -> None:
        """Whoever comes next is nobody, and whoever says who they are is nobody else."""
        pool = self.db._tenant_pool._pool
        connection = await pool.acquire()
        try:
            assert await connection.fetchval("SELECT current_setting('tollway.organization_id', true)") in {None, ""}
            assert await connection.fetchval("SELECT count(*) FROM notes") == 0
        finally:
            await pool.release(connection)
        for tenant in (TWO, ONE):
            for begin in (self.db.tenant, self.db.read):
                async with begin(tenant) as tx:
                    assert {row[0] for row in await tx.fetch("SELECT organization_id FROM notes")} == {tenant}
                    assert await tx.fetchval("SELECT current_user") == "tollway_ratelimit"
        async with self.db.system() as tx:
            assert {row[0] for row in await tx.fetch("SELECT organization_id FROM notes")} == {ONE, TWO}
            assert await tx.fetchval("SELECT current_user") == "tollway_ratelimit_system"


@pytest.fixture
async def story(db: Database, database: Any) -> Any:
    admin = await asyncpg.connect(database.dsn("admin"))
    await admin.execute("SET deadlock_timeout = '1h'")
    yield Story(db, admin)
    await admin.close()


async def recovered(story: Story) -> None:
    """Waits until the pool has noticed that a connection was cut."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await story.check()
                return


async def test_a_tenant_never_reaches_the_next_user_of_a_connection(story: Story) -> None:
    for transactions in drawn(stories, STORIES_COUNT):
        for tenant, kind, way in transactions:
            await story.live(tenant, kind, way)
            await recovered(story)


@pytest.mark.parametrize("kind", ["tenant", "read", "system"])
async def test_a_transaction_may_be_cancelled_in_any_await(story: Story, kind: str) -> None:
    for turns in range(CANCELLED_IN_TURNS_MAX):
        await story.live(ONE, kind, ("cancelled after turns", turns))
        await recovered(story)
    for statements in range(len(STATEMENTS) + 1):
        await story.live(ONE, kind, ("cancelled after statements", statements))
        await recovered(story)


async def test_the_pools_share_no_connection(story: Story) -> None:
    pids: dict[str, set[int]] = {"tenant": set(), "system": set()}
    for way in ("well", "fails", "cut", "times out", "well"):
        for kind, seen in pids.items():
            await story.live(ONE, kind, (way, 1))
            await recovered(story)
            async with story.begin(ONE, kind) as tx:
                seen.add(await tx.fetchval("SELECT pg_backend_pid()"))
    assert pids["tenant"].isdisjoint(pids["system"])
    assert len(pids["tenant"]) > 1


async def test_many_tenants_at_once_see_their_own_rows_on_one_connection(story: Story) -> None:
    async def look(tenant: UUID, number: int) -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with story.db.tenant(tenant) as tx:
                assert {row[0] for row in await tx.fetch("SELECT organization_id FROM notes")} == {tenant}
                if number % 3 == 0:
                    raise ZeroDivisionError
                await tx.execute("UPDATE notes SET number = number")
                assert {row[0] for row in await tx.fetch("SELECT organization_id FROM notes")} == {tenant}

    tasks = [asyncio.ensure_future(look((ONE, TWO)[number % 2], number)) for number in range(20)]
    for number, task in enumerate(tasks):
        if number % 5 == 4:
            await asyncio.sleep(0)
            task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in found if isinstance(each, AssertionError)] == []
    await recovered(story)
