"""The columns of a usage event: the one table that says what is staged, what is stored and as what.

Metering parses an event into a tuple, copies the tuple into a staging table of its connection and inserts from there
into `usage_events`. The tuple's order, the staging table's definition and both lists of the insert are derived from
`COLUMNS`, so a new attribute of an event is one line here, one value in `services/metering/event_parsing.py` and a
migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One value of a staged event.

    Args:
        name: In the staging table.
        sql_type: Of the staging table; it never has a default.
        is_nullable: Whether the value may be missing.
        stored_name: The column of `usage_events`; empty where the value is needed only while the event is taken in.
        stored_as: SQL that turns the staged value (`s.<name>`) into the stored one; empty where it is the same.
    """

    name: str
    sql_type: str
    is_nullable: bool = False
    stored_name: str = ""
    stored_as: str = ""


def _stored(name: str, sql_type: str, *, is_nullable: bool = False) -> Column:
    return Column(name=name, sql_type=sql_type, is_nullable=is_nullable, stored_name=name)


def _json(name: str) -> Column:
    return Column(name=name, sql_type="text", is_nullable=True, stored_name=name, stored_as=f"s.{name}::jsonb")


COLUMNS: Final = (
    _stored("organization_id", "uuid"),
    _stored("event_id", "uuid"),
    Column(
        name="start_time_us",
        sql_type="bigint",
        stored_name="start_time",
        stored_as="'epoch'::timestamptz + s.start_time_us * interval '1 microsecond'",
    ),
    _stored("api_key_id", "uuid"),
    _stored("route_id", "text"),
    _stored("method", "text"),
    _stored("path_template", "text"),
    _stored("status", "smallint"),
    _stored("outcome", "smallint"),
    _stored("duration_us", "bigint"),
    _stored("upstream_latency_us", "bigint"),
    _stored("request_bytes", "bigint"),
    _stored("response_bytes", "bigint"),
    _stored("cost_units", "bigint"),
    _stored("test_mode", "boolean"),
    _stored("billable", "boolean"),
    _stored("external_subject", "text"),
    _json("quantities"),
    _json("properties"),
    # Why the event's own times are not believed, and what it said; both are null where they are believed.
    _stored("time_suspect", "text", is_nullable=True),
    _stored("claimed_start_time_us", "bigint", is_nullable=True),
    Column(name="payload_hash", sql_type="bytea"),
    Column(name="id_time_us", sql_type="bigint", is_nullable=True),
    Column(name="ordinal", sql_type="integer"),
)

STAGED_NAMES: Final = tuple(column.name for column in COLUMNS)
STORED_NAMES: Final = tuple(column.stored_name for column in COLUMNS if column.stored_name)


def index_of(name: str) -> int:
    """Return a value's place in a staged event's tuple.

    Raises:
        ValueError: There is no such column.
    """
    return STAGED_NAMES.index(name)


def staging_definition() -> str:
    """Return the column definitions of the staging table."""
    return ",\n    ".join(
        f"{column.name} {column.sql_type}{'' if column.is_nullable else ' NOT NULL'}" for column in COLUMNS
    )


def stored_columns() -> str:
    """Return the columns of `usage_events` that an insert names."""
    return ", ".join(STORED_NAMES)


def stored_values() -> str:
    """Return what an insert selects from the staging table, which is called `s`, in the order of `stored_columns`."""
    return ", ".join(column.stored_as or f"s.{column.name}" for column in COLUMNS if column.stored_name)
