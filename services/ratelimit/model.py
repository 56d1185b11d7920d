"""Values of ratelimit. All of them are frozen; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from contract.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of one organization; all must have room, or nothing is consumed."""

    organization_id: UUID
    version: int
    windows: tuple[Window, ...]


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
