"""Values of metering. All of them are frozen; nothing here does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

StagedEvent: TypeAlias = tuple[Any, ...]
"""A valid event, its values in the order of `contract.events.COLUMNS`. A tuple, because COPY takes tuples and
tens of thousands are made per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a batch comes from: a journal, or a partition of a topic."""

    name: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestBatch:
    """Serialised events and the position behind the last of them in their source.

    Args:
        source: Where they come from.
        next_offset: None where the source has no positions; then nothing is recorded.
        payloads: Serialised `UsageEvent`s.
    """

    source: Source
    next_offset: int | None
    payloads: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a source has been taken in, and when it got there."""

    next_offset: int
    update_time: datetime


class DeadReason(Enum):
    """Why a payload was not taken in."""

    UNREADABLE = "unreadable"
    INVALID = "invalid"
    TOO_OLD = "too_old"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """What is wrong with a payload."""

    reason: DeadReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A payload that was not taken in."""

    source: Source
    payload: bytes
    payload_hash: bytes
    reason: DeadReason
    detail: str


class LetterState(Enum):
    """What became of a dead letter."""

    WAITING = "waiting"
    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterKey:
    """Which dead letter: the same payload is one per reason."""

    payload_hash: bytes
    reason: DeadReason


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPlace:
    """A dead letter's place in the list of all."""

    create_time: datetime
    key: DeadLetterKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A dead letter as it is kept; `resolver` and `resolve_time` are None while it waits."""

    place: DeadLetterPlace
    detail: str
    source: Source
    payload: bytes
    state: LetterState
    resolve_time: datetime | None
    resolver: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of a batch's events. Events without an organization are in none of the counts."""

    accepted_count: int
    duplicate_count: int
    dead_count: int


class Dimension(Enum):
    """What usage can be grouped by; the value is the rollup's column."""

    API_KEY = "api_key_id"
    ROUTE = "route_id"
    STATUS_CLASS = "status_class"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """A valid question: half-open range, width of a row in time (None: the range), dimensions, keys (None: all)."""

    organization_id: UUID
    start_time: datetime
    end_time: datetime
    width: timedelta | None
    group_by: tuple[Dimension, ...]
    api_key_ids: tuple[UUID, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One sum, with the values of the dimensions in the query's order."""

    start_time: datetime
    group: tuple[str, ...]
    request_count: int
    billable_count: int
    billable_units: Decimal
    test_count: int
