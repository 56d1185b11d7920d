"""Tenants through the real pools, on a real PostgreSQL."""

import asyncio
from uuid import UUID

import asyncpg
import pytest
import structlog

from contract.services import SERVICES
from mesh.database import migrate
from mesh.database.pools import Database, DatabaseUnavailable

ONE, TWO = UUID(int=1), UUID(int=2)

TABLE = """
CREATE TABLE ratelimit.notes (organization_id uuid NOT NULL, note text NOT NULL);
ALTER TABLE ratelimit.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE ratelimit.notes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ratelimit.notes TO tollway_ratelimit
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON ratelimit.notes TO tollway_ratelimit_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON ratelimit.notes TO tollway_ratelimit, tollway_ratelimit_system;
"""


@pytest.fixture
async def db(database):
    owner = await asyncpg.connect(database.dsn("owner"))
    await owner.execute(TABLE)
    await owner.close()
    db = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"), system_dsn=database.dsn("ratelimit_system"), name="test", pool_size_max=2
    )
    yield db
    await db.close()


async def write(db, tenant, row_of=None):
    async with db.tenant(tenant) as tx:
        await tx.execute("INSERT INTO notes VALUES ($1, 'n')", row_of or tenant)


async def test_a_tenant_sees_its_own_rows_and_the_system_sees_all(db):
    await write(db, ONE)
    await write(db, TWO)
    for tenant in (ONE, TWO):
        async with db.tenant(tenant) as tx:
            assert await tx.fetch("SELECT organization_id FROM notes") == [(tenant,)]
        async with db.read(tenant) as tx:
            assert await tx.fetchval("SELECT count(*) FROM notes") == 1
    async with db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM notes") == 2


async def test_a_tenant_cannot_write_anothers_row(db):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await write(db, ONE, row_of=TWO)


async def test_a_reading_transaction_cannot_write(db):
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with db.read(ONE) as tx:
            await tx.execute("INSERT INTO notes VALUES ($1, 'n')", ONE)


async def test_a_pooled_connection_forgets_its_tenant(db):
    await asyncio.gather(*(write(db, ONE) for _ in range(5)))
    for _ in range(5):
        connection = await db._tenant_pool.acquire()
        assert await connection.fetchval("SELECT count(*) FROM notes") == 0
        await db._tenant_pool.release(connection)


async def test_a_failed_transaction_leaves_nothing(db):
    async def write_and_fail():
        async with db.tenant(ONE) as tx:
            await tx.execute("INSERT INTO notes VALUES ($1, 'n')", ONE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    async with db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM notes") == 0


async def test_a_lost_server_is_unavailable_and_the_pool_recovers(db, database):
    admin = await asyncpg.connect(database.dsn("admin"))
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'tollway_ratelimit%'"

    async def lose_the_connection():
        async with db.system() as tx:
            await admin.execute(cut)
            await tx.fetchval("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await lose_the_connection()
    await admin.close()
    await db.ping()


async def test_listeners_hear_and_are_told_when_the_line_is_cut(db, database):
    heard, lost = asyncio.Queue(), asyncio.Event()
    await db.listen("news", heard.put_nowait, on_lost=lost.set)
    async with db.system() as tx:
        await tx.execute("SELECT pg_notify('news', 'hello')")
    assert await asyncio.wait_for(heard.get(), 5) == "hello"
    admin = await asyncpg.connect(database.dsn("admin"))
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LISTEN%' AND pid <> pg_backend_pid()"
    )
    await admin.close()
    await asyncio.wait_for(lost.wait(), 5)


async def test_a_listener_that_is_stopped_was_not_lost(db):
    lost = asyncio.Event()
    stop = await db.listen("news", print, on_lost=lost.set)
    await stop()
    assert not lost.is_set()


async def test_migrations_go_up_down_and_up_again(database):
    owner = database.dsn("owner")
    before = await migrate.status(owner)
    assert before
    assert all(state.applied for state in before)
    assert await migrate.up(owner) == []
    for service in SERVICES:
        steps = len(migrate.discover(service))
        assert len(await migrate.down(owner, service, steps)) == steps
    assert not any(state.applied for state in await migrate.status(owner))
    assert len(await migrate.up(owner)) == len(before)


async def test_an_edited_migration_is_noticed(database):
    owner = database.dsn("owner")
    connection = await asyncpg.connect(owner)
    await connection.execute("UPDATE auth.schema_migrations SET checksum = 'x' WHERE version = 1")
    await connection.close()
    with pytest.raises(migrate.MigrationError, match=r"auth/0001_.* was edited"):
        await migrate.up(owner)


async def test_a_slow_statement_is_logged_with_its_plan(db, monkeypatch):
    monkeypatch.setattr("mesh.database.pools.SLOW_STATEMENT_SECONDS", 0.01)
    with structlog.testing.capture_logs() as logs:
        async with db.tenant(ONE) as tx:
            await tx.fetch("SELECT note, pg_sleep(0.02) FROM (VALUES ('a')) AS t (note) WHERE note = $1", "a")
        async with asyncio.timeout(5):
            while not logs:
                await asyncio.sleep(0.01)
    (line,) = logs
    assert line["event"] == "slow_statement"
    assert line["duration_ms"] >= 20
    assert "Result" in line["plan"][0]
