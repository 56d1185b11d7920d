"""Runs metering's statements. No rules: what is stored, and when, is decided by the callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from contract import events
from mesh.database import sql
from mesh.database.connection import Connection
from services.metering.model import (
    DeadLetter,
    DeadLetterKey,
    DeadLetterPlace,
    DeadReason,
    Dimension,
    LetterState,
    Position,
    Source,
    StagedEvent,
    StoredLetter,
    UsageQuery,
    UsageRow,
)

QUERIES: Final = sql.load(__package__)
# Statements about all columns of an event; the contract's table fills them in.
EVENT_QUERIES: Final = sql.load(
    __package__,
    "events.sql",
    values={
        "staging_definition": events.staging_definition(),
        "stored_columns": events.stored_columns(),
        "stored_values": events.stored_values(),
    },
)
STAGING_TABLE: Final = "staged_usage_events"
EVENTS_TABLE: Final = "usage_events"
EVENT_IDS_TABLE: Final = "usage_event_ids"


async def stage(tx: Connection, staged: Sequence[StagedEvent]) -> None:
    """Copy events into the connection's staging table, which is empty again after the transaction."""
    await tx.execute(EVENT_QUERIES["create_staging"])
    await tx.copy_records_to_table(STAGING_TABLE, records=staged, columns=events.STAGED_NAMES)


async def store_staged(tx: Connection, *, arrival_week: date, oldest_week: date, looked_up_before_us: int) -> list[int]:
    """Store and count the staged events that are new; return the ordinals of the others."""
    rows = await tx.fetch(EVENT_QUERIES["store_staged_events"], arrival_week, oldest_week, looked_up_before_us)
    return [row["ordinal"] for row in rows]


async def find_conflicts(tx: Connection, ordinals: Sequence[int], *, oldest_week: date) -> set[int]:
    """Return which of the staged events that were there already had another payload."""
    return {row["ordinal"] for row in await tx.fetch(EVENT_QUERIES["find_conflicts"], oldest_week, ordinals)}


async def hold_arrival_week(tx: Connection) -> date:
    """Return the week that ids are filed under; it stays the current one until the transaction ends."""
    await tx.execute(QUERIES["advance_arrival_week"])
    week: date = await tx.fetchval(QUERIES["hold_arrival_week"])
    return week


async def create_week_partition(tx: Connection, table: str, week: date) -> None:
    """Make a week's partition where it is missing."""
    await tx.execute(QUERIES["create_week_partition"], table, week)


async def drop_event_id_weeks(tx: Connection, ended_before: date) -> int:
    """Drop the weeks of ids that ended before a day; return how many."""
    dropped: int = await tx.fetchval(QUERIES["drop_event_id_weeks"], ended_before)
    return dropped


async def put_offsets(tx: Connection, offsets: Mapping[Source, int], now: datetime) -> None:
    """Record positions, in a fixed order of sources."""
    for source in sorted(offsets, key=lambda each: (each.name, each.partition)):
        await tx.execute(QUERIES["put_offset"], source.name, source.partition, offsets[source], now)


async def move_offset(tx: Connection, source: Source, offset: int, now: datetime) -> None:
    """Move a recorded position, back too."""
    await tx.execute(QUERIES["move_offset"], source.name, source.partition, offset, now)


async def get_position(tx: Connection, source: Source) -> Position | None:
    """Return the recorded position of a source."""
    row = await tx.fetchrow(QUERIES["get_position"], source.name, source.partition)
    return Position(next_offset=row["next_offset"], update_time=row["update_time"]) if row else None


async def insert_dead_letters(tx: Connection, letters: Sequence[DeadLetter], now: datetime) -> None:
    """Keep payloads that were not taken in, each once per reason, in a fixed order."""
    rows = [
        (
            letter.payload_hash,
            letter.reason.value,
            letter.detail,
            letter.source.name,
            letter.source.partition,
            letter.payload,
            now,
        )
        for letter in sorted(letters, key=lambda each: (each.payload_hash, each.reason.value))
    ]
    await tx.executemany(QUERIES["insert_dead_letter"], rows)


async def count_waiting_letters(tx: Connection, *, count_max: int) -> int:
    """Return how many dead letters wait, at most `count_max`."""
    count: int = await tx.fetchval(QUERIES["count_waiting_letters"], count_max)
    return count


async def list_letters(
    tx: Connection, state: LetterState, *, after: DeadLetterPlace | None, limit: int
) -> list[StoredLetter]:
    """Return dead letters in one state, the oldest first, from behind a place."""
    place = (after.create_time, after.key.payload_hash, after.key.reason.value) if after else (None, None, None)
    return [_letter(row) for row in await tx.fetch(QUERIES["list_letters"], state.value, *place, limit)]


async def find_letter(tx: Connection, key: DeadLetterKey, *, is_locked: bool) -> StoredLetter | None:
    """Return a dead letter, locked until the transaction ends where that is asked for."""
    name = "lock_letter" if is_locked else "find_letter"
    row = await tx.fetchrow(QUERIES[name], key.payload_hash, key.reason.value)
    return _letter(row) if row else None


async def resolve_letter(
    tx: Connection, key: DeadLetterKey, *, state: LetterState, now: datetime, resolver: str
) -> StoredLetter:
    """Note what was decided about a dead letter."""
    row = await tx.fetchrow(QUERIES["resolve_letter"], key.payload_hash, key.reason.value, state.value, now, resolver)
    return _letter(row)


def _letter(row: Any) -> StoredLetter:
    key = DeadLetterKey(payload_hash=row["payload_hash"], reason=DeadReason(row["reason"]))
    return StoredLetter(
        place=DeadLetterPlace(create_time=row["create_time"], key=key),
        detail=row["detail"],
        source=Source(name=row["source"], partition=row["source_partition"]),
        payload=row["payload"],
        state=LetterState(row["state"]),
        resolve_time=row["resolve_time"],
        resolver=row["resolver"],
    )


async def query_usage(tx: Connection, query: UsageQuery, *, rows_max: int) -> list[UsageRow]:
    """Sum rollups; at most `rows_max` rows come back."""
    rows = await tx.fetch(
        QUERIES["query_usage"],
        query.organization_id,
        query.start_time,
        query.end_time,
        query.width,
        Dimension.API_KEY in query.group_by,
        Dimension.ROUTE in query.group_by,
        Dimension.STATUS_CLASS in query.group_by,
        rows_max,
        query.api_key_ids,
    )
    return [
        UsageRow(
            start_time=row["start_time"],
            group=tuple(_label(dimension, row[dimension.value]) for dimension in query.group_by),
            request_count=row["request_count"],
            billable_count=row["billable_count"],
            billable_units=row["billable_units"],
            test_count=row["test_count"],
        )
        for row in rows
    ]


def _label(dimension: Dimension, value: object) -> str:
    return f"{value}xx" if dimension is Dimension.STATUS_CLASS else str(value)
