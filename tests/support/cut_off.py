"""Takes a database away from everybody who uses it, without stopping the server that other tests use."""

from __future__ import annotations

import asyncpg

from tests.support.postgres import TestDatabase, TestPostgres


async def cut_off(postgres: TestPostgres, database: TestDatabase) -> None:
    """Ends every connection to a database and lets nobody in again."""
    admin = await asyncpg.connect(postgres.server.admin_dsn)
    try:
        await admin.execute(f'ALTER DATABASE "{database.name}" ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database.name)
    finally:
        await admin.close()


async def let_in(postgres: TestPostgres, database: TestDatabase) -> None:
    """Lets everybody in again."""
    admin = await asyncpg.connect(postgres.server.admin_dsn)
    try:
        await admin.execute(f'ALTER DATABASE "{database.name}" ALLOW_CONNECTIONS true')
    finally:
        await admin.close()
