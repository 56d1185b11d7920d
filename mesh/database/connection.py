"""The part of an asyncpg connection that Tollway uses, as a type; asyncpg ships none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

Row: TypeAlias = Mapping[str, Any]
"""A row by column names."""


class Connection(Protocol):
    """A connection inside a transaction."""

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement and return its status, for example `DELETE 3`; without arguments it may be several."""
        ...

    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None:
        """Run a statement once for each sequence of arguments."""
        ...

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Return all rows."""
        ...

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """Return the first row, if there is one."""
        ...

    async def fetchval(self, query: str, *args: object) -> Any:
        """Return the first column of the first row; None where there is no row."""
        ...

    async def copy_records_to_table(
        self, table_name: str, *, records: Iterable[Sequence[object]], columns: Sequence[str] | None = None
    ) -> str:
        """COPY rows into a table and return the status."""
        ...

    def transaction(self, *, readonly: bool = False) -> AbstractAsyncContextManager[object]:
        """Open a transaction; inside of one, a savepoint."""
        ...

    def is_closed(self) -> bool:
        """Tell whether the connection is gone."""
        ...

    def add_query_logger(self, callback: Callable[[Any], None]) -> None:
        """Call back after every statement."""
        ...


class Pool(Protocol):
    """A pool of such connections."""

    async def acquire(self, *, timeout: float) -> Connection:
        """Return a connection that nobody else uses.

        Raises:
            TimeoutError: All of them are in use for that long.
        """
        ...

    async def release(self, connection: Connection) -> None:
        """Give a connection back."""
        ...

    async def expire_connections(self) -> None:
        """Have every connection of now replaced when it is next taken or given back."""
        ...

    async def fetch(self, query: str, *args: object, timeout: float) -> list[Row]:
        """Run a statement on any connection and return its rows."""
        ...

    async def close(self) -> None:
        """Close every connection once it is given back."""
        ...

    def terminate(self) -> None:
        """Cut every connection."""
        ...
