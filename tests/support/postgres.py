"""One embedded PostgreSQL per test process, a template database migrated once, a clone per test."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import itertools
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from cli.stack.ports import LOOPBACK, free_ports
from cli.stack.servers import roles
from cli.stack.servers.postgres import RunningPostgres, start_postgres
from contract.services import SERVICES

TEMPLATE = "tollway_template"
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
SUPERUSER_PASSWORD = "tests-superuser"

T = TypeVar("T")

_numbers = itertools.count(1)


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a loop of its own in a thread of its own, so that the test's loop is not touched."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:  # noqa: BLE001 handed to the caller
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TestDatabase:
    """One database: a clone for a test, or the template."""

    __test__ = False

    access: roles.PostgresAccess

    @property
    def name(self) -> str:
        return self.access.database

    def dsn(self, role: str) -> str:
        """Returns the connection string of "owner", "admin" (superuser), "<service>" or "<service>_system"."""
        return self.access.dsn(roles.SUPERUSER if role == "admin" else f"tollway_{role}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TestPostgres:
    """The session's server."""

    __test__ = False

    server: RunningPostgres
    access: roles.PostgresAccess

    async def clone(self) -> TestDatabase:
        """Creates a fresh database from the template."""
        name = f"tollway_test_{next(_numbers)}"
        admin = await asyncpg.connect(self.server.admin_dsn)
        try:
            await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
            await roles.apply_database_settings(admin, name)
        finally:
            await admin.close()
        return TestDatabase(access=self.access.on(name))

    async def drop(self, database: TestDatabase) -> None:
        """Drops a clone, cutting the connections that are left."""
        admin = await asyncpg.connect(self.server.admin_dsn)
        try:
            await admin.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')
        finally:
            await admin.close()


@contextmanager
def running_postgres(folder: Path) -> Iterator[TestPostgres]:
    """Starts a throw-away server with the migrated template and stops it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    server = start_postgres(
        folder=folder,
        port=port,
        superuser_password=SUPERUSER_PASSWORD,
        log_path=folder / "postgres.log",
        throwaway=True,
    )
    try:
        passwords = {login: f"tests-{login}" for login in roles.logins()}
        passwords[roles.SUPERUSER] = SUPERUSER_PASSWORD
        access = roles.PostgresAccess(host=LOOPBACK, port=port, passwords=passwords)
        run_apart(roles.bootstrap(server.admin_dsn, passwords, TEMPLATE))
        run_apart(migrate(access.on(TEMPLATE)))
        yield TestPostgres(server=server, access=access)
    finally:
        server.stop()


async def migrate(access: roles.PostgresAccess) -> None:
    """Brings the database to the newest schema of every service."""
    if importlib.util.find_spec("mesh.database.migrate") is not None:
        from mesh.database import migrate as mesh_migrate  # noqa: PLC0415 lands separately

        await mesh_migrate.up(access.dsn(roles.OWNER))
        return
    connection = await asyncpg.connect(access.dsn(roles.OWNER))
    try:
        for service in SERVICES:
            for path in sorted((MIGRATIONS / service).glob("*.up.sql")):
                await connection.execute(f"SET search_path = {service}")
                await connection.execute(path.read_text())
    finally:
        await connection.close()
