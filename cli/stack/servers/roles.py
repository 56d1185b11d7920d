"""PostgreSQL roles, schemas and the database: the part of the schema that migrations stand on.

One schema per service. `tollway_owner` owns schemas and tables and is used by migrations alone; every service has a
tenant role, which row security holds to one organization, and a system role for its workers. None of them is a
superuser, owns a table of a service or bypasses row security.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import asyncpg

from contract.services import SERVICES

DATABASE = "tollway"
SUPERUSER = "postgres"
OWNER = "tollway_owner"
# What holds for a service's role wherever it logs in. The pools of the services ask for less (mesh/database/pools.py).
SERVICE_TIMEOUTS_SECONDS = {"statement_timeout": 60, "lock_timeout": 10, "idle_in_transaction_session_timeout": 60}


def service_logins(service: str) -> tuple[str, str]:
    """Return the tenant role and the system role of a service."""
    return f"tollway_{service}", f"tollway_{service}_system"


def logins() -> Iterator[str]:
    """Yield every role but the superuser."""
    yield OWNER
    for service in SERVICES:
        yield from service_logins(service)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PostgresAccess:
    """Where a PostgreSQL server is and the passwords of its roles."""

    host: str
    port: int
    passwords: Mapping[str, str]
    database: str = DATABASE

    def dsn(self, login: str) -> str:
        """Return the connection string of one role."""
        password = quote(self.passwords[login], safe="")
        return f"postgresql://{login}:{password}@{self.host}:{self.port}/{self.database}"

    def on(self, database: str) -> PostgresAccess:
        """Return the same server's access to another database."""
        return dataclasses.replace(self, database=database)


async def create_roles(admin: asyncpg.Connection, passwords: Mapping[str, str]) -> None:
    """Create the roles that are missing and set every password to the one that the stack knows."""
    existing = {row["rolname"] for row in await admin.fetch("SELECT rolname FROM pg_roles")}
    for login in logins():
        verb = "ALTER" if login in existing else "CREATE"
        # Utility statements take no parameters; the server quotes the parts instead of this process.
        statement = await admin.fetchval(
            "SELECT format('%s ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD %L', "
            "$1::text, $2::text, $3::text)",
            verb,
            login,
            passwords[login],
        )
        await admin.execute(statement)
        for name, seconds in SERVICE_TIMEOUTS_SECONDS.items() if login != OWNER else ():
            await admin.execute(f"ALTER ROLE {login} SET {name} = '{seconds}s'")


async def create_database(admin: asyncpg.Connection, database: str) -> None:
    """Create the database if it is missing."""
    if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
        await admin.execute(f'CREATE DATABASE "{database}"')


async def create_schemas(connection: asyncpg.Connection) -> None:
    """Create the services' schemas in the connected database, owned by the owner role. Safe to repeat."""
    statements = ["REVOKE CREATE ON SCHEMA public FROM PUBLIC"]
    for service in SERVICES:
        tenant, system = service_logins(service)
        statements.append(f"CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {OWNER}")
        statements.append(f"GRANT USAGE ON SCHEMA {service} TO {tenant}, {system}")
    await connection.execute(";\n".join(statements))


async def apply_database_settings(connection: asyncpg.Connection, database: str) -> None:
    """Set what belongs to a database but is not copied from its template: who may connect, and search paths."""
    statements = [f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC']
    statements.append(f'GRANT CONNECT, TEMPORARY ON DATABASE "{database}" TO {", ".join(logins())}')
    statements += [
        f'ALTER ROLE {login} IN DATABASE "{database}" SET search_path = {service}'
        for service in SERVICES
        for login in service_logins(service)
    ]
    await connection.execute(";\n".join(statements))


async def bootstrap(admin_dsn: str, passwords: Mapping[str, str], database: str = DATABASE) -> None:
    """Brings a server to where migrations can run: roles, database, schemas, settings. Safe to repeat.

    Args:
        admin_dsn: Connection string of a role that may create roles and databases, to any database.
        passwords: The password of every role of `logins()`.
        database: Name of the database to create.
    """
    admin = await asyncpg.connect(admin_dsn)
    try:
        await create_roles(admin, passwords)
        await create_database(admin, database)
    finally:
        await admin.close()
    connection = await asyncpg.connect(admin_dsn, database=database)
    try:
        await create_schemas(connection)
        await apply_database_settings(connection, database)
    finally:
        await connection.close()
