"""Values of ratelimit. All of them are frozen; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID


class WindowKind(IntEnum):
    """How a window refills; the numbers are the proto's and decide.lua's."""

    TOKEN_BUCKET = 1
    CALENDAR_DAY = 2
    CALENDAR_MONTH = 3


class WindowScope(IntEnum):
    """Whose requests share a window; the numbers are the proto's and decide.lua's."""

    ORGANIZATION = 1
    API_KEY = 2
    ROUTE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One limit. `period_seconds` is 0 for calendar windows."""

    name: str
    kind: WindowKind
    scope: WindowScope
    limit: int
    period_seconds: int
    counts_billable_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of one organization; all must have room, or nothing is consumed."""

    organization_id: UUID
    version: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarInstant:
    """The instant that calendar windows are chosen by, and the windows that it falls into.

    `day` and `month` count days and months and are never 0.
    """

    time_us: int
    day: int
    month: int
    day_left_ms: int
    month_left_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseededWindow:
    """A calendar window whose count is not known: `key` and `window` are its place in the call that found it."""

    key: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What metering has counted in a calendar window; `window` is its number in the policy, from 1."""

    window: int
    window_id: int
    used: int
