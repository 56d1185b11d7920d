"""The only ways to a PostgreSQL connection: for one tenant, or for the system.

`tenant(organization_id)` opens a transaction in which row security shows that organization's rows and no others. The
setting is transaction-local (`set_config(..., true)`), so neither a pooled connection nor PgBouncer can carry it over.
`system()` opens a transaction under a second role that sees all tenants; workers and look-ups by secret use it.
`read(organization_id)` is `tenant` on a replica where one is configured.

**Nothing waits for ever.** A caller that waits longer than `ACQUIRE_TIMEOUT_SECONDS` for a connection gets
`DatabaseUnavailable` rather than a place in an endless queue. The server ends a statement, a wait for a lock and a
transaction that lies idle after the seconds of `Timeouts`, and the caller gets `DatabaseBusy`. One tenant holds a share
of a pool at most (`shares`). A connection is replaced after an hour at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

import asyncpg

from mesh.database import follow as following
from mesh.database.connection import Connection, Pool
from mesh.database.follow import Changed, ReadAll
from mesh.database.shares import TenantShares
from mesh.database.slow_statements import SlowStatements
from mesh.rpc.errors import Unavailable

__all__ = ["Connection", "Database", "DatabaseBusy", "DatabaseUnavailable"]

POOL_SIZE_MIN: Final = 5
POOL_SIZE_MAX: Final = 25
CONNECTION_IDLE_SECONDS_MAX: Final = 30 * 60
CONNECTION_LIFETIME_SECONDS_MAX: Final = 60 * 60
ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
COMMAND_TIMEOUT_SECONDS: Final = 30.0
RETRY_AFTER_SECONDS: Final = 1.0

_TOO_LONG: Final = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# A timeout is a server that does not even end a statement by itself: it hangs, or the line to it does.
_AWAY: Final = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, ConnectionError, TimeoutError)
_SET_TENANT: Final = "SELECT set_config('tollway.organization_id', $1, true)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """What the server ends by itself, in seconds."""

    statement_seconds: int
    lock_seconds: int
    idle_in_transaction_seconds: int

    def settings(self) -> dict[str, str]:
        """Return them as PostgreSQL's settings, in milliseconds."""
        return {
            "statement_timeout": str(self.statement_seconds * 1_000),
            "lock_timeout": str(self.lock_seconds * 1_000),
            "idle_in_transaction_session_timeout": str(self.idle_in_transaction_seconds * 1_000),
        }


TENANT_TIMEOUTS: Final = Timeouts(statement_seconds=10, lock_seconds=3, idle_in_transaction_seconds=10)
SYSTEM_TIMEOUTS: Final = Timeouts(statement_seconds=30, lock_seconds=5, idle_in_transaction_seconds=30)


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached right now; try again."""


class DatabaseBusy(Unavailable):
    """The database took too long over this; try again."""


class Database:
    """The pools of one process. Use `connect`.

    Args:
        tenant_pool: Connections of the tenant role.
        system_pool: Connections of the system role.
        read_pool: Connections of the tenant role on a replica, or the tenant pool itself.
        system_dsn: For listeners, which need a connection of their own.
    """

    def __init__(self, *, tenant_pool: RolePool, system_pool: RolePool, read_pool: RolePool, system_dsn: str) -> None:
        self._tenant_pool = tenant_pool
        self._system_pool = system_pool
        self._read_pool = read_pool
        self._system_dsn = system_dsn

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
        tenant_pool = await RolePool.open(tenant_dsn, name, pool_size_max, TENANT_TIMEOUTS)
        system_pool = await RolePool.open(system_dsn, f"{name}-system", pool_size_max, SYSTEM_TIMEOUTS)
        read_pool = tenant_pool
        if read_dsn:
            read_pool = await RolePool.open(read_dsn, f"{name}-read", pool_size_max, TENANT_TIMEOUTS)
        return cls(tenant_pool=tenant_pool, system_pool=system_pool, read_pool=read_pool, system_dsn=system_dsn)

    @contextlib.asynccontextmanager
    async def tenant(self, organization_id: UUID) -> AsyncIterator[Connection]:
        """Open a transaction that sees one organization's rows.

        Raises:
            TenantBusy: The organization holds its share of the pool.
            DatabaseUnavailable, DatabaseBusy: The server is away, or took too long.
        """
        async with self._tenant_pool.shares.hold(organization_id), self._tenant_pool.transaction() as connection:
            await connection.execute(_SET_TENANT, str(organization_id))
            yield connection

    @contextlib.asynccontextmanager
    async def read(self, organization_id: UUID) -> AsyncIterator[Connection]:
        """Open a read-only transaction that sees one organization's rows, on a replica where there is one."""
        pool = self._read_pool
        async with pool.shares.hold(organization_id), pool.transaction(readonly=True) as connection:
            await connection.execute(_SET_TENANT, str(organization_id))
            yield connection

    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[Connection]:
        """Open a transaction that sees all organizations."""
        async with self._system_pool.transaction() as connection:
            yield connection

    async def ping(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            DatabaseUnavailable: It gives none.
        """
        async with self._system_pool.transaction() as connection:
            await connection.execute("SELECT 1")

    async def follow(
        self,
        channel: str,
        *,
        changed: Changed,
        read_all: ReadAll,
        lost: Callable[[], None] = lambda: None,
        refresh_seconds: float | None = None,
    ) -> None:
        """Follow a channel of NOTIFY until cancelled; see `follow`."""
        await following.follow(
            self._system_dsn,
            channel,
            changed=changed,
            read_all=read_all,
            lost=lost,
            refresh_seconds=refresh_seconds,
        )

    async def close(self) -> None:
        """Close every connection; those in use get a moment to finish."""
        for pool in {self._tenant_pool, self._system_pool, self._read_pool}:
            await pool.close()


class RolePool:
    """The connections of one role. Use `open`.

    Args:
        pool: asyncpg's.
        size_max: Connections at most.
    """

    def __init__(self, pool: Pool, size_max: int) -> None:
        self._pool = pool
        self._expire_at = asyncio.get_running_loop().time() + CONNECTION_LIFETIME_SECONDS_MAX
        self.shares = TenantShares(size_max)

    @classmethod
    async def open(cls, dsn: str, name: str, size_max: int, timeouts: Timeouts) -> RolePool:
        """Connect.

        Raises:
            OSError, asyncpg.PostgresError: The server cannot be reached or refuses.
        """
        slow = SlowStatements()
        slow.pool = cast(
            Pool,
            await asyncpg.create_pool(
                dsn,
                min_size=min(POOL_SIZE_MIN, size_max),
                max_size=size_max,
                max_inactive_connection_lifetime=CONNECTION_IDLE_SECONDS_MAX,
                command_timeout=COMMAND_TIMEOUT_SECONDS,
                server_settings={"application_name": name, **timeouts.settings()},
                init=slow.watch,
            ),
        )
        return cls(slow.pool, size_max)

    @contextlib.asynccontextmanager
    async def transaction(self, *, readonly: bool = False) -> AsyncIterator[Connection]:
        """Open a transaction.

        Raises:
            DatabaseUnavailable, DatabaseBusy: The server is away, or took too long.
        """
        connection = await self._acquire()
        try:
            async with connection.transaction(readonly=readonly):
                yield connection
        except _TOO_LONG as error:
            raise DatabaseBusy(repr(error), retry_after_seconds=RETRY_AFTER_SECONDS) from error
        except _AWAY as error:
            raise DatabaseUnavailable(repr(error)) from error
        except asyncpg.InternalClientError as error:
            # The server's last word came while asyncpg thought the connection idle: it is as good as gone.
            raise DatabaseUnavailable(repr(error)) from error
        except asyncpg.InterfaceError as error:
            # asyncpg cannot roll back on a connection that is gone and says so with this class, over the real cause.
            if _is_gone(connection):
                raise DatabaseUnavailable(repr(error)) from error
            raise
        finally:
            await self._pool.release(connection)

    async def close(self) -> None:
        """Close every connection; those in use get a moment to finish."""
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _acquire(self) -> Connection:
        now = asyncio.get_running_loop().time()
        if now >= self._expire_at:
            self._expire_at = now + CONNECTION_LIFETIME_SECONDS_MAX
            await self._pool.expire_connections()
        try:
            return await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
            raise DatabaseUnavailable(repr(error)) from error


def _is_gone(connection: Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has dropped a lost connection already and left us its empty proxy.
        return True
