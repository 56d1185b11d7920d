"""What a whole database holds, in a form that can be compared: nothing may be written where nothing should be."""

from __future__ import annotations

import asyncpg

from contract.services import SERVICES

# Refusals are audited; that is the one thing that a refused call writes.
DENIALS = "action IN ('rpc.deny', 'session.deny')"
LAST_USE = "last_use_time"
"""Whoever shows credentials uses them, also where the call is refused."""
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
GROUP BY 1, 2 ORDER BY 1, 2
"""


async def contents(admin: asyncpg.Connection) -> dict[str, list[str]]:
    """Returns every row of every table of every service, with the transaction that wrote it.

    A row that is written again as it was has another transaction. Not so where the last use is noted, so the rows of
    such a table are compared by the other columns.

    Args:
        admin: A superuser's connection, which row security hides nothing from.
    """
    found = {}
    for table in await admin.fetch(_TABLES, list(SERVICES)):
        name = f"{table['schema']}.{table['name']}"
        row = "t.xmin::text || ' ' || t::text"
        if LAST_USE in table["columns"]:
            row = f"(to_jsonb(t) - '{LAST_USE}')::text"
        where = f"WHERE NOT {DENIALS}" if name == "auth.audit_entries" else ""
        rows = await admin.fetch(f'SELECT {row} AS row FROM "{table["schema"]}"."{table["name"]}" AS t {where}')
        found[name] = sorted(row["row"] for row in rows)
    return found


def changes(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns the rows that one state has and the other has not, by table."""
    return {name: sorted(set(before[name]) ^ set(after[name])) for name in before if before[name] != after[name]}
