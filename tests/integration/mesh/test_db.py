"""Tenants through the real pools, on a real PostgreSQL."""

import asyncio
import contextlib
from uuid import UUID

import asyncpg
import pytest
import structlog

from contract.services import SERVICES
from mesh.database import migrate
from mesh.database.pools import CONNECTION_LIFETIME_SECONDS_MAX, Database, DatabaseBusy, DatabaseUnavailable
from mesh.database.shares import WAITING_MAX, TenantBusy

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
        connection = await db._tenant_pool._pool.acquire()
        assert await connection.fetchval("SELECT count(*) FROM notes") == 0
        await db._tenant_pool._pool.release(connection)


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
    # Idle connections were lost as well, and the pool may not have noticed each of them yet.
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                await db.ping()
                break


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


async def test_every_role_has_timeouts_of_its_own_and_in_its_pools(db, database):
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    async with db.tenant(ONE) as tx:
        assert [await tx.fetchval(f"SHOW {name}") for name in limits] == ["10s", "3s", "10s"]
    async with db.system() as tx:
        assert [await tx.fetchval(f"SHOW {name}") for name in limits] == ["30s", "5s", "30s"]
    for service in SERVICES:
        for role in (service, f"{service}_system"):
            connection = await asyncpg.connect(database.dsn(role))
            found = [await connection.fetchval(f"SHOW {name}") for name in limits]
            await connection.close()
            assert "0" not in found, role


async def test_a_statement_that_takes_too_long_is_ended_and_the_caller_told_to_come_back(db):
    async def sleep():
        async with db.tenant(ONE) as tx:
            await tx.execute("SET LOCAL statement_timeout = 20")
            await tx.execute("SELECT pg_sleep(60)")

    with pytest.raises(DatabaseBusy) as told:
        await sleep()
    assert told.value.retry_after_seconds == 1.0


async def test_a_wait_for_a_lock_ends(db, database):
    async def read():
        async with db.tenant(ONE) as tx:
            await tx.execute("SET LOCAL lock_timeout = 20")
            await tx.fetch("SELECT note FROM notes")

    owner = await asyncpg.connect(database.dsn("owner"))
    async with owner.transaction():
        await owner.execute("LOCK TABLE ratelimit.notes")
        with pytest.raises(DatabaseBusy):
            await read()
    await owner.close()


async def test_one_tenant_behind_a_lock_starves_nobody(db, database):
    """Fifty calls of one organization wait for a lock; another organization is served meanwhile."""
    other = UUID(int=3)
    owner = await asyncpg.connect(database.dsn("owner"))
    await owner.execute(
        "CREATE TABLE ratelimit.locks (organization_id uuid); INSERT INTO ratelimit.locks VALUES"
        f" ('{ONE}'), ('{other}'); GRANT SELECT, UPDATE ON ratelimit.locks TO tollway_ratelimit"
    )
    admin = await asyncpg.connect(database.dsn("admin"))
    wide = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"), system_dsn=database.dsn("ratelimit_system"), name="wide"
    )
    outcomes = []

    async def call(tenant):
        try:
            async with wide.tenant(tenant) as tx:
                await tx.fetch("SELECT 1 FROM locks WHERE organization_id = $1 FOR UPDATE", tenant)
        except (TenantBusy, DatabaseBusy) as error:
            outcomes.append(error)

    try:
        async with owner.transaction():
            await owner.execute("SELECT 1 FROM ratelimit.locks WHERE organization_id = $1 FOR UPDATE", ONE)
            waiting = [asyncio.create_task(call(ONE)) for _ in range(50)]
            async with asyncio.timeout(60):
                while not await admin.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'wide'"
                ):
                    await asyncio.sleep(0.01)
            await asyncio.gather(*(call(other) for _ in range(20)))
            # Those of the other organization passed, and most of the fifty still wait or were told to come back.
            assert all(isinstance(each, TenantBusy) for each in outcomes)
            assert not all(each.done() for each in waiting)
        await asyncio.gather(*waiting)
    finally:
        await owner.close()
        await admin.close()
        await wide.close()
    busy = [each for each in outcomes if isinstance(each, TenantBusy)]
    assert len(busy) >= 50 - 6 - WAITING_MAX
    assert {each.retry_after_seconds for each in busy} == {1.0}


async def test_reads_go_to_the_replica_where_there_is_one(database, postgres):
    replica = await postgres.clone()
    db = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"),
        system_dsn=database.dsn("ratelimit_system"),
        read_dsn=replica.dsn("ratelimit"),
        name="test",
        pool_size_max=2,
    )
    try:
        async with db.read(ONE) as tx:
            assert await tx.fetchval("SELECT current_database()") == replica.access.database
        for other in (db.tenant(ONE), db.system()):
            async with other as tx:
                assert await tx.fetchval("SELECT current_database()") == database.access.database
    finally:
        await db.close()
        await postgres.drop(replica)


async def test_pools_hold_five_to_twenty_five_connections(database):
    db = await Database.connect(
        tenant_dsn=database.dsn("ratelimit"), system_dsn=database.dsn("ratelimit_system"), name="sized"
    )
    try:
        assert (db._tenant_pool._pool.get_size(), db._tenant_pool._pool.get_max_size()) == (5, 25)
    finally:
        await db.close()


async def test_a_connection_is_replaced_after_its_lifetime(db):
    async def pid():
        async with db.tenant(ONE) as tx:
            return await tx.fetchval("SELECT pg_backend_pid()")

    first = {await pid() for _ in range(4)}
    db._tenant_pool._expire_at = 0.0
    assert not first & {await pid() for _ in range(4)}
    assert db._tenant_pool._expire_at > asyncio.get_running_loop().time() + CONNECTION_LIFETIME_SECONDS_MAX - 60


async def test_a_slow_statement_is_logged_with_its_plan(db, monkeypatch):
    monkeypatch.setattr("mesh.database.slow_statements.SLOW_STATEMENT_SECONDS", 0.01)
    with structlog.testing.capture_logs() as logs:
        async with db.tenant(ONE) as tx:
            await tx.fetch("SELECT note, pg_sleep(0.02) FROM (VALUES ('a')) AS t (note) WHERE note = $1", "a")
        async with asyncio.timeout(30):
            # On a busy machine other statements may be slow too.
            while not (found := [line for line in logs if "pg_sleep" in line["statement"] and line["plan"]]):
                await asyncio.sleep(0.01)
    (line,) = found
    assert line["event"] == "slow_statement"
    assert line["duration_ms"] >= 20
    assert "Result" in line["plan"][0]
