"""Every statement in every `queries.sql` is prepared by the server, as the role that may run it."""

from pathlib import Path

import asyncpg
import pytest

from contract.services import SERVICES
from mesh.database.sql import Queries

SERVICES_FOLDER = Path(__file__).resolve().parents[3] / "services"


@pytest.mark.parametrize("service", SERVICES)
async def test_every_statement_can_be_prepared(database, service):
    files = sorted((SERVICES_FOLDER / service).rglob("queries.sql"))
    assert files
    connection = await asyncpg.connect(database.dsn("owner"))
    try:
        await connection.execute(f"SET search_path = {service}")
        for file in files:
            for name, statement in Queries(file.read_text(), str(file)).items():
                try:
                    await connection.prepare(statement)
                    if "CREATE TEMPORARY TABLE" in statement:
                        # What comes after may use it.
                        await connection.execute(statement)
                except asyncpg.PostgresError as error:
                    pytest.fail(f"{file.name}: {name}: {error}")
    finally:
        await connection.close()
