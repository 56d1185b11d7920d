"""The only ways to a PostgreSQL connection: for one tenant, or for the system.

`tenant(organization_id)` opens a transaction in which row security shows that organization's rows and no others. The
setting is transaction-local (`set_config(..., true)`), so neither a pooled connection nor PgBouncer can carry it over.
`system()` opens a transaction under a second role that sees all tenants; workers and look-ups by secret use it.
`read(organization_id)` is `tenant` on a replica where one is configured.

Each pool has its own limits, and a statement slower than `SLOW_STATEMENT_SECONDS` is logged. A caller that waits longer
than `ACQUIRE_TIMEOUT_SECONDS` for a connection gets `DatabaseUnavailable` rather than a place in an endless queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import structlog

from mesh.rpc.errors import Unavailable

POOL_SIZE_MIN: Final = 1
POOL_SIZE_MAX: Final = 25
CONNECTION_IDLE_SECONDS_MAX: Final = 30 * 60
CONNECTION_LIFETIME_SECONDS_MAX: Final = 60 * 60
ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
COMMAND_TIMEOUT_SECONDS: Final = 30.0
SLOW_STATEMENT_SECONDS: Final = 0.5
STATEMENT_LENGTH_LOGGED_MAX: Final = 100
STATEMENTS_REMEMBERED_MAX: Final = 1_000
EXPLAIN_INTERVAL_SECONDS: Final = 60.0
LISTEN_HEARTBEAT_SECONDS: Final = 0.5
LISTEN_TIMEOUT_SECONDS: Final = 2.0

_SET_TENANT: Final = "SELECT set_config('tollway.organization_id', $1, true)"

Connection: TypeAlias = Any
"""An asyncpg connection inside a transaction; asyncpg is untyped."""
Pool: TypeAlias = Any
"""An asyncpg pool."""

log = structlog.get_logger()


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached right now; try again."""


class Database:
    """The pools of one process. Use `connect`.

    Args:
        tenant_pool: Connections of the tenant role.
        system_pool: Connections of the system role.
        read_pool: Connections of the tenant role on a replica, or the tenant pool itself.
        system_dsn: For listeners, which need a connection of their own.
    """

    def __init__(self, *, tenant_pool: Pool, system_pool: Pool, read_pool: Pool, system_dsn: str) -> None:
        self._tenant_pool = tenant_pool
        self._system_pool = system_pool
        self._read_pool = read_pool
        self.system_dsn = system_dsn

    @classmethod
    async def connect(
        cls,
        *,
        tenant_dsn: str,
        system_dsn: str,
        read_dsn: str | None = None,
        name: str,
        pool_size_max: int = POOL_SIZE_MAX,
    ) -> Database:
        """Open the pools.

        Args:
            tenant_dsn: Data source name of the service's tenant role.
            system_dsn: Data source name of the service's system role.
            read_dsn: A replica for `read`; None means the primary.
            name: The process, shown in `pg_stat_activity`.
            pool_size_max: Connections per pool at most.

        Raises:
            OSError, asyncpg.PostgresError: The server cannot be reached or refuses.
        """
        tenant_pool = await _open_pool(tenant_dsn, name, pool_size_max)
        system_pool = await _open_pool(system_dsn, f"{name}-system", pool_size_max)
        read_pool = await _open_pool(read_dsn, f"{name}-read", pool_size_max) if read_dsn else tenant_pool
        return cls(tenant_pool=tenant_pool, system_pool=system_pool, read_pool=read_pool, system_dsn=system_dsn)

    @contextlib.asynccontextmanager
    async def tenant(self, organization_id: UUID) -> AsyncIterator[Connection]:
        """Open a transaction that sees one organization's rows."""
        async with _transaction(self._tenant_pool) as connection:
            await connection.execute(_SET_TENANT, str(organization_id))
            yield connection

    @contextlib.asynccontextmanager
    async def read(self, organization_id: UUID) -> AsyncIterator[Connection]:
        """Open a read-only transaction that sees one organization's rows, on a replica where there is one."""
        async with _transaction(self._read_pool, readonly=True) as connection:
            await connection.execute(_SET_TENANT, str(organization_id))
            yield connection

    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[Connection]:
        """Open a transaction that sees all organizations."""
        async with _transaction(self._system_pool) as connection:
            yield connection

    async def ping(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            DatabaseUnavailable: It gives none.
        """
        async with _transaction(self._system_pool) as connection:
            await connection.execute("SELECT 1")

    async def listen(
        self, channel: str, callback: Callable[[str], None], on_lost: Callable[[], None] | None = None
    ) -> Callable[[], Awaitable[None]]:
        """Call `callback` with the payload of every NOTIFY on a channel, over a connection of its own.

        Args:
            channel: The channel's name.
            callback: Called in the event loop; must not block.
            on_lost: Called once when the connection ends without having been asked to, within
                `LISTEN_HEARTBEAT_SECONDS` (a hung line: and `LISTEN_TIMEOUT_SECONDS`). Listen again, then read again
                what may have been missed.

        Returns:
            A coroutine function that stops listening.
        """
        connection = await asyncpg.connect(self.system_dsn, command_timeout=LISTEN_TIMEOUT_SECONDS)
        await connection.add_listener(channel, lambda _connection, _pid, _channel, payload: callback(payload))

        async def watch() -> None:
            # A server that goes away says nothing to an idle listener (and a cut cable says nothing to anybody), so
            # the line is tried once a heartbeat.
            try:
                while True:
                    await asyncio.sleep(LISTEN_HEARTBEAT_SECONDS)
                    await connection.execute("SELECT 1")
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listener_lost", channel=channel, detail=repr(error))
                connection.terminate()
                if on_lost is not None:
                    on_lost()

        watching = asyncio.create_task(watch())

        async def stop() -> None:
            watching.cancel()
            connection.terminate()

        return stop

    async def close(self) -> None:
        """Close every connection; those in use get a moment to finish."""
        for pool in {self._tenant_pool, self._system_pool, self._read_pool}:
            try:
                await asyncio.wait_for(pool.close(), ACQUIRE_TIMEOUT_SECONDS)
            except TimeoutError:
                pool.terminate()


async def _open_pool(dsn: str, name: str, size_max: int) -> Pool:
    slow = _SlowStatements()
    slow.pool = await asyncpg.create_pool(
        dsn,
        min_size=POOL_SIZE_MIN,
        max_size=size_max,
        max_inactive_connection_lifetime=CONNECTION_IDLE_SECONDS_MAX,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings={"application_name": name},
        init=slow.watch,
    )
    return slow.pool


class _SlowStatements:
    """Logs what takes long, with the plan that the server would choose for it.

    The plan is asked for afterwards (EXPLAIN does not run the statement), on another connection, and once a minute per
    statement at most, so that a slow database is not made slower by explaining itself.
    """

    def __init__(self) -> None:
        self.pool: Pool = None
        self._explain_after: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, connection: Connection) -> None:
        """Look at every statement of a connection."""
        connection.add_query_logger(self._see)

    def _see(self, record: Any) -> None:
        if record.elapsed < SLOW_STATEMENT_SECONDS:
            return
        statement = record.query.split("\n", 1)[0][:STATEMENT_LENGTH_LOGGED_MAX]
        now = asyncio.get_running_loop().time()
        if len(self._explain_after) > STATEMENTS_REMEMBERED_MAX:
            self._explain_after.clear()
        explain = now >= self._explain_after.get(statement, 0.0)
        if explain:
            self._explain_after[statement] = now + EXPLAIN_INTERVAL_SECONDS
        task = asyncio.create_task(self._log(statement, record, explain=explain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _log(self, statement: str, record: Any, *, explain: bool) -> None:
        plan: list[str] = []
        if explain:
            # Utility statements have no plan, and a lost connection has none to give.
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                rows = await self.pool.fetch(f"EXPLAIN {record.query}", *(record.args or ()), timeout=1.0)
                plan = [row[0] for row in rows]
        log.warning("slow_statement", statement=statement, duration_ms=round(record.elapsed * 1000, 1), plan=plan)


@contextlib.asynccontextmanager
async def _transaction(pool: Pool, *, readonly: bool = False) -> AsyncIterator[Connection]:
    try:
        connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
        raise DatabaseUnavailable(repr(error)) from error
    try:
        async with connection.transaction(readonly=readonly):
            yield connection
    except (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, ConnectionError) as error:
        raise DatabaseUnavailable(repr(error)) from error
    except asyncpg.InterfaceError as error:
        # asyncpg cannot roll back on a connection that is gone and says so with this class, over the real cause.
        if _is_gone(connection):
            raise DatabaseUnavailable(repr(error)) from error
        raise
    finally:
        await pool.release(connection)


def _is_gone(connection: Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has dropped a lost connection already and left us its empty proxy.
        return True
