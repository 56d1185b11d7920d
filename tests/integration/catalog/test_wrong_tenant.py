"""Every statement of every service as the wrong tenant: it sees nothing of the other's and changes nothing.

Two tenants have a row in every table, made from the catalog; every UUID, text and byte string of a row is its tenant's
own, so every parameter of a statement can be aimed at the first tenant, whatever it means, or at one that has no rows
yet. The statements run under the tenant role, with the second tenant set, with nobody set, and for comparison with the
tenant set that is aimed at: they find its rows then and insert new ones, so what is not found is not missing from the
seed. Checks and foreign keys are dropped, because a row that they refuse would hide one that row security lets in. A
statement or a table that is written later is covered without a line here.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

import services
from contract.services import SERVICES
from mesh.database import idempotency
from mesh.database.sql import Queries
from mesh.jobs import queue

MINE, THEIRS, SHARED, ABSENT = (UUID(f"{letter * 8}-0000-7000-8000-{letter * 12}") for letter in "abcd")
# As JSON they are text as well: some statements read one from the other.
TEXTS = {MINE: '"mine"', THEIRS: '"theirs"', SHARED: '"shared"', ABSENT: '"absent"'}
BYTES = {MINE: b"\xaa" * 32, THEIRS: b"\xbb" * 32, SHARED: b"\xcc" * 32, ABSENT: b"\xdd" * 32}
AHEAD = timedelta(days=1)
COLUMNS = """
SELECT c.relname AS table_name, c.relkind = 'p' AS is_partitioned, a.attname AS name, a.attnotnull AS is_needed,
       format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attgenerated = '' AND a.attidentity = ''
ORDER BY 1, a.attnum
"""
CHECKS = """
SELECT c.relname AS table_name, k.conname AS name, pg_get_constraintdef(k.oid) AS rule
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = $1::regnamespace AND k.contype IN ('c', 'f') AND k.conislocal AND NOT c.relispartition
ORDER BY k.contype DESC
"""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HIGHEST = UUID(int=2**128 - 1)
Values = tuple[tuple[datetime, datetime], bool, tuple[UUID | None, ...]]
"""What parameters are: every other instant, flags, and every UUID but the first (page tokens), if it is not the aim."""
ONE_OF = re.compile(r"\(\(?(\w+) = ANY \(ARRAY\['([^']+)'::text")


def queries_of(service: str) -> Iterator[tuple[str, str]]:
    """Yields every named statement that a service may run."""
    found: dict[int, Queries] = {}
    package = importlib.import_module(f"services.{service}")
    for module in pkgutil.walk_packages(package.__path__, f"services.{service}."):
        if not module.name.endswith("__main__"):
            held = vars(importlib.import_module(module.name)).values()
            found |= {id(each): each for each in held if isinstance(each, Queries)}
    for shared in (queue, idempotency):
        found |= {id(each): each for each in vars(shared).values() if isinstance(each, Queries)}
    for queries in found.values():
        yield from ((f"{queries._origin}: {name}", statement) for name, statement in queries.items())


def value_of(type_name: str, tenant: UUID, *, time: datetime, flag: bool = True) -> Any:
    """A value of a type that is a tenant's own, as far as the type can tell tenants apart."""
    if type_name.endswith("[]"):
        return [value_of(type_name[:-2], tenant, time=time, flag=flag)]
    values = {
        "uuid": tenant,
        "text": TEXTS[tenant],
        "character varying": TEXTS[tenant],
        "bytea": BYTES[tenant],
        "boolean": flag,
        "timestamp with time zone": time,
        "timestamptz": time,
        "date": time.date(),
        "interval": AHEAD,
        "jsonb": "{}",
        "json": "{}",
        "bool": flag,
    }
    return values.get(type_name, 1)


async def seed(admin: asyncpg.Connection, schema: str) -> set[str]:
    """Puts one row of each tenant into every table and returns the names of those whose rows have an organization."""
    allowed = {}
    for check in await admin.fetch(CHECKS, schema):
        for column, first in ONE_OF.findall(check["rule"]):
            allowed[check["table_name"], column] = first
        # What a row means is not the matter here, only whose it is.
        await admin.execute(f'ALTER TABLE "{schema}"."{check["table_name"]}" DROP CONSTRAINT "{check["name"]}"')
    now = datetime.now(UTC)
    await admin.execute("SET session_replication_role = replica")
    tables: dict[str, dict[str, Any]] = {}
    for column in await admin.fetch(COLUMNS, schema):
        table = tables.setdefault(column["table_name"], {"is_partitioned": column["is_partitioned"], "columns": []})
        # What need not be said is not said, but for ids: no end, no platform role, no error.
        if column["is_needed"] or column["type"] == "uuid":
            table["columns"].append(column)
    for name, table in tables.items():
        if table["is_partitioned"]:
            await admin.execute(
                f'CREATE TABLE "{schema}"."{name}_of_the_test" PARTITION OF "{schema}"."{name}" DEFAULT'
            )
        is_owned = any(column["type"] == "uuid" for column in table["columns"])
        for tenant in (MINE, THEIRS) if is_owned else (SHARED,):
            values = []
            for column in table["columns"]:
                time = now + AHEAD if column["name"].startswith("expire") else now
                value = value_of(column["type"], tenant, time=time, flag=False)
                values.append(allowed.get((name, column["name"]), value) if isinstance(value, str) else value)
            names = ", ".join(f'"{column["name"]}"' for column in table["columns"])
            marks = ", ".join(f"${number + 1}" for number in range(len(values)))
            await admin.execute(
                f'INSERT INTO "{schema}"."{name}" ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING', *values
            )
    return {
        name
        for name, table in tables.items()
        if any(column["name"] == "organization_id" for column in table["columns"])
    }


async def rows_of_others(admin: asyncpg.Connection, schema: str, tables: set[str]) -> dict[str, list[str]]:
    """The rows of the first tenant and of the one that has none, with the transactions that wrote them."""
    found = {}
    for name in sorted(tables):
        rows = await admin.fetch(
            f"""SELECT t.xmin::text || t::text AS row FROM "{schema}"."{name}" AS t
            WHERE t::text LIKE '%{MINE}%' OR t::text LIKE '%{ABSENT}%'"""
        )
        found[name] = sorted(row["row"] for row in rows)
    return found


def shows_mine(value: Any) -> bool:
    """Whether a value holds anything of the first tenant's."""
    if isinstance(value, asyncpg.Record | list | tuple):
        return any(map(shows_mine, value))
    if isinstance(value, str):
        return str(MINE) in value or TEXTS[MINE] in value
    return value in {MINE, BYTES[MINE]} if isinstance(value, UUID | bytes) else False


def arguments(parameters: Iterable[asyncpg.Type], aim: UUID, values: Values) -> list[Any]:
    """Values for a statement's parameters, of the tenant that is aimed at."""
    times, uuids = itertools.cycle(values[0]), itertools.count()
    found = []
    for parameter in parameters:
        name = parameter.name.removesuffix("[]")
        time = next(times) if name in {"timestamptz", "date"} else EPOCH
        whole = name + ("[]" if parameter.kind == "array" else "")
        if whole == "uuid" and next(uuids) and values[2]:
            found.append(values[2][0])
        else:
            found.append(value_of(whole, aim, time=time, flag=values[1]))
    return found


def said_of(rows: list[Any], aim: UUID) -> str:
    """What rows say, but for the name of the tenant that was asked about."""
    text = repr(rows)
    for name in (str(aim), TEXTS[aim], repr(BYTES[aim])):
        text = text.replace(name, "…")
    return text


async def run(
    connection: asyncpg.Connection, statement: str, aim: UUID, tenant: UUID | None, values: Values, *, keep: bool
) -> tuple[list[Any], str]:
    """Runs a statement that is aimed at a tenant, as another or the same one, and returns rows and status."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(
            "SELECT set_config('tollway.organization_id', $1, true)", "" if tenant is None else str(tenant)
        )
        prepared = await connection.prepare(statement)
        rows = await prepared.fetch(*arguments(prepared.get_parameters(), aim, values))
        status = prepared.get_statusmsg()
    except asyncpg.PostgresError as error:
        await transaction.rollback()
        return [], f"{type(error).__name__}: {error}"
    await (transaction.commit() if keep else transaction.rollback())
    return rows, status


async def test_every_service_has_statements() -> None:
    assert {name for name in SERVICES if list(queries_of(name))} == set(SERVICES)
    assert set(SERVICES) == {module.name for module in pkgutil.iter_modules(services.__path__)}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_statement_aimed_at_another_tenant_sees_and_changes_nothing(database: Any, service: str) -> None:
    admin = await asyncpg.connect(database.dsn("admin"))
    tables = await seed(admin, service)
    role = await asyncpg.connect(database.dsn(service))
    before = await rows_of_others(admin, service, tables)
    assert all(before.values()), before
    past, future = datetime.now(UTC) - AHEAD, datetime.now(UTC) + AHEAD
    values = list(
        itertools.product(((past, past), (future, future), (past, future)), (True, False), ((), (None,), (HIGHEST,)))
    )
    of_tenants = re.compile(rf"\b(?:{'|'.join(tables)})\b")
    found, runnable, leaks = set(), set(), []
    for name, statement in queries_of(service):
        for each in values:
            for aim in (MINE, ABSENT):
                rows, status = await run(role, statement, aim, aim, each, keep=False)
                if rows or re.fullmatch(r"(UPDATE|DELETE|INSERT 0) [1-9]\d*", status):
                    found.add(name)
                if not status.startswith(asyncpg.InsufficientPrivilegeError.__name__) and of_tenants.search(statement):
                    runnable.add(name)
            for tenant in (THEIRS, None):
                rows, _ = await run(role, statement, MINE, tenant, each, keep=True)
                of_nobody, _ = await run(role, statement, ABSENT, tenant, each, keep=True)
                if shows_mine(rows) or said_of(rows, MINE) != said_of(of_nobody, ABSENT):
                    leaks.append((name, tenant, "sees", rows[:1]))
        after = await rows_of_others(admin, service, tables)
        if after != before:
            leaks.append((name, "changes", {table: after[table] for table in tables if after[table] != before[table]}))
            before = after
    await role.close()
    await admin.close()
    assert not leaks
    # What the tenant itself does not find would be hidden from nobody: most of what can be run has to find it.
    assert len(runnable - found) <= max(1, len(runnable) / 4), runnable - found
