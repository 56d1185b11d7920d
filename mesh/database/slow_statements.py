"""Logs statements that take long, with the plan that the server would choose for them.

The plan is asked for afterwards (EXPLAIN does not run the statement), on another connection, and once a minute per
statement at most, so that a slow database is not made slower by explaining itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import asyncpg
import structlog

from mesh.database.connection import Connection, Pool

SLOW_STATEMENT_SECONDS: Final = 0.5
STATEMENT_LENGTH_LOGGED_MAX: Final = 100
STATEMENTS_REMEMBERED_MAX: Final = 1_000
EXPLAIN_INTERVAL_SECONDS: Final = 60.0
EXPLAIN_TIMEOUT_SECONDS: Final = 1.0

log = structlog.get_logger()


class SlowStatements:
    """Looks at every statement of a pool. `pool` is set once it is open."""

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self._explain_after: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, connection: Connection) -> None:
        """Look at every statement of a connection."""
        connection.add_query_logger(self._see)

    def _see(self, record: Any) -> None:
        if record.elapsed < SLOW_STATEMENT_SECONDS:
            return
        statement = record.query.split("\n", 1)[0][:STATEMENT_LENGTH_LOGGED_MAX]
        now = asyncio.get_running_loop().time()
        if len(self._explain_after) > STATEMENTS_REMEMBERED_MAX:
            self._explain_after.clear()
        explain = now >= self._explain_after.get(statement, 0.0)
        if explain:
            self._explain_after[statement] = now + EXPLAIN_INTERVAL_SECONDS
        task = asyncio.create_task(self._log(statement, record, explain=explain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _log(self, statement: str, record: Any, *, explain: bool) -> None:
        plan: list[str] = []
        if explain and self.pool is not None:
            # Utility statements have no plan, and a lost connection has none to give.
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                rows = await self.pool.fetch(
                    f"EXPLAIN {record.query}", *(record.args or ()), timeout=EXPLAIN_TIMEOUT_SECONDS
                )
                plan = [str(row["QUERY PLAN"]) for row in rows]
        log.warning("slow_statement", statement=statement, duration_ms=round(record.elapsed * 1000, 1), plan=plan)
