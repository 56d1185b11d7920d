"""Applies `migrations/<service>/NNNN_name.up.sql` in order, each once, as the owner role.

Every service has its own schema and its own `schema_migrations` table in it. A migration and its record commit in one
transaction. A file whose first line is `-- tollway:no-transaction` (indexes built CONCURRENTLY) runs statement by
statement outside of one and must be repeatable. An advisory lock keeps two runners apart, and a short lock timeout
makes a migration fail rather than queue behind a long transaction and stop the traffic behind it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from contract.services import SERVICES

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "migrations"
LOCK_TIMEOUT: Final = "5s"
STATEMENT_TIMEOUT: Final = "5min"
_ADVISORY_LOCK: Final = 0x70115A9
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.up\.sql")
_NO_TRANSACTION: Final = "-- tollway:no-transaction"

_CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now()
)
"""
_COMMENT_TABLE: Final = "COMMENT ON TABLE schema_migrations IS 'not a tenant table: what the migrator has applied'"


class MigrationError(Exception):
    """A migration cannot be applied; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of one service."""

    service: str
    version: int
    name: str
    up_sql: str
    down_sql: str

    @property
    def checksum(self) -> str:
        """Return what is recorded, so that an edited migration is noticed."""
        return hashlib.sha256(self.up_sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationState:
    """A migration and whether it has been applied."""

    service: str
    version: int
    name: str
    applied: bool


def discover(service: str, root: Path = MIGRATIONS) -> list[Migration]:
    """Read a service's migrations in order.

    Raises:
        MigrationError: A version comes twice, or a down file is missing.
    """
    found: dict[int, Migration] = {}
    for path in sorted((root / service).glob("*.up.sql")):
        match = _FILE.fullmatch(path.name)
        down = path.with_name(path.name.replace(".up.sql", ".down.sql"))
        if match is None or not down.exists():
            raise MigrationError(f"{path.name}: needs the form NNNN_name.up.sql and a .down.sql beside it")
        version = int(match[1])
        if version in found:
            raise MigrationError(f"{service}: version {version:04} comes twice")
        found[version] = Migration(
            service=service,
            version=version,
            name=match[2],
            up_sql=path.read_text(encoding="utf-8"),
            down_sql=down.read_text(encoding="utf-8"),
        )
    return [found[version] for version in sorted(found)]


async def up(owner_dsn: str, service: str | None = None) -> list[Migration]:
    """Apply what is missing, for one service or all, and return it."""
    connection = await _connect(owner_dsn)
    try:
        applied: list[Migration] = []
        for name in [service] if service else SERVICES:
            applied += await _up_service(connection, name)
        return applied
    finally:
        await connection.close()


async def down(owner_dsn: str, service: str, steps: int = 1) -> list[Migration]:
    """Take back the last `steps` migrations of a service and return them."""
    connection = await _connect(owner_dsn)
    try:
        recorded = await _recorded(connection, service)
        taken_back = [m for m in reversed(discover(service)) if m.version in recorded][:steps]
        for migration in taken_back:
            await _run(connection, migration, migration.down_sql, "DELETE FROM schema_migrations WHERE version = $1")
        return taken_back
    finally:
        await connection.close()


async def status(owner_dsn: str) -> list[MigrationState]:
    """List every migration with its state."""
    connection = await _connect(owner_dsn)
    try:
        states = []
        for service in SERVICES:
            recorded = await _recorded(connection, service)
            states += [
                MigrationState(service=service, version=m.version, name=m.name, applied=m.version in recorded)
                for m in discover(service)
            ]
        return states
    finally:
        await connection.close()


async def _connect(owner_dsn: str) -> Any:
    connection = await asyncpg.connect(owner_dsn)
    await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'; SET statement_timeout = '{STATEMENT_TIMEOUT}'")
    await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
    return connection


async def _recorded(connection: Any, service: str) -> dict[int, str]:
    await connection.execute(f"SET search_path = {service}")
    await connection.execute(_CREATE_TABLE)
    await connection.execute(_COMMENT_TABLE)
    return {row["version"]: row["checksum"] for row in await connection.fetch("SELECT * FROM schema_migrations")}


async def _up_service(connection: Any, service: str) -> list[Migration]:
    recorded = await _recorded(connection, service)
    missing = []
    for migration in discover(service):
        checksum = recorded.get(migration.version)
        if checksum is None:
            missing.append(migration)
        elif checksum != migration.checksum:
            raise MigrationError(f"{service}/{migration.version:04}_{migration.name} was edited after it was applied")
    for migration in missing:
        await _run(
            connection,
            migration,
            migration.up_sql,
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.name,
            migration.checksum,
        )
    return missing


async def _run(connection: Any, migration: Migration, sql: str, record: str, *values: str) -> None:
    try:
        if sql.startswith(_NO_TRANSACTION):
            for statement in sql.removeprefix(_NO_TRANSACTION).split(";\n"):
                if statement.strip():
                    await connection.execute(statement)
            await connection.execute(record, migration.version, *values)
        else:
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute(record, migration.version, *values)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{migration.service}/{migration.version:04}_{migration.name}: {error}") from error
