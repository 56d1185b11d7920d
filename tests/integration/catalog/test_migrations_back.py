"""Every migration can be taken back and applied again."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.database import migrate
from tests.support.postgres import TestDatabase

SHAPE = """
SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'i') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT p.polname || ' on ' || p.polrelid::regclass || ': ' || coalesce(pg_get_expr(p.polqual, p.polrelid), '')
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = $1::regnamespace
UNION ALL SELECT c.relname || ' ' || coalesce(a.attname, '') || ' ' || g.grantee::regrole || ' ' || g.privilege_type
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL,
LATERAL aclexplode(coalesce(a.attacl, c.relacl)) g WHERE c.relnamespace = $1::regnamespace
UNION ALL SELECT t.tgname || ' on ' || t.tgrelid::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal
ORDER BY 1
"""


async def shape(database: TestDatabase, service: str) -> list[str]:
    connection = await asyncpg.connect(database.dsn("admin"))
    try:
        return [row[0] for row in await connection.fetch(SHAPE, service)]
    finally:
        await connection.close()


@pytest.mark.parametrize("service", ["auth", "notification"])
async def test_what_is_taken_back_step_by_step_can_be_applied_again(database: TestDatabase, service: str) -> None:
    newest = await shape(database, service)
    steps = len(migrate.discover(service))
    for _ in range(steps):
        assert len(await migrate.down(database.dsn("owner"), service)) == 1
    assert [line for line in await shape(database, service) if not line.startswith("schema_migrations")] == []
    assert len(await migrate.up(database.dsn("owner"), service)) == steps
    assert await shape(database, service) == newest
