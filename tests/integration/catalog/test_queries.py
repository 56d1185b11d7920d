"""Every statement in every file of statements can be run, by a login role of its service that has the rights for it."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from contract.services import SERVICES
from mesh.database.sql import Queries

SERVICES_FOLDER = Path(__file__).resolve().parents[3] / "services"
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "MERGE")


def body_of(statement: str) -> str:
    """A statement without its comments."""
    return "\n".join(line for line in statement.splitlines() if not line.lstrip().startswith("--")).strip()


async def try_as_its_role(connection: asyncpg.Connection, statement: str) -> str:
    """Says why a role cannot run a statement; empty where it can.

    PREPARE looks at names and types only. A generic plan is made with the checks of rights that a run would make.
    """
    try:
        if body_of(statement).upper().startswith(EXPLAINED):
            await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
        else:
            await connection.prepare(statement)
        if "CREATE TEMPORARY TABLE" in statement:
            # What comes after may use it.
            await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("service", SERVICES)
async def test_every_statement_can_be_run_by_a_role_of_its_service(database, service):
    folder = SERVICES_FOLDER / service
    files = sorted([*folder.rglob("queries.sql"), *folder.glob("store/*.sql")])
    assert files
    roles = {role: await asyncpg.connect(database.dsn(role)) for role in (service, f"{service}_system")}
    try:
        for file in files:
            for name, statement in Queries(file.read_text(), str(file)).items():
                why = {role: await try_as_its_role(connection, statement) for role, connection in roles.items()}
                assert "" in why.values(), f"{file.name}: {name}: {why}"
    finally:
        for connection in roles.values():
            await connection.close()
