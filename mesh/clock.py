"""Time comes in by constructor, so that tests and test clocks can move it.

`now` takes the organization whose periods, quotas or schedules are being decided: a test clock moves one organization
and nobody else. Token expiry, TLS and burst windows never follow it and use `now()` without one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """The two kinds of time that a process needs."""

    def now(self, organization_id: UUID | None = None) -> datetime:
        """Return the current instant, aware, in UTC; for an organization where its time may be moved."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for measuring durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self, organization_id: UUID | None = None) -> datetime:  # noqa: ARG002 - the machine's time is everybody's
        """Return the machine's time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved; for tests.

    Args:
        start: The first instant, aware.
    """

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0
        self._shifts: dict[UUID, timedelta] = {}

    def now(self, organization_id: UUID | None = None) -> datetime:
        """Return the instant last moved to, with the organization's own shift."""
        shift = self._shifts.get(organization_id, timedelta()) if organization_id else timedelta()
        return self._now + shift

    def monotonic(self) -> float:
        """Return the seconds that `advance` has added up."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move everybody's time forward."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def shift(self, organization_id: UUID, seconds: float) -> None:
        """Move the time of one organization."""
        self._shifts[organization_id] = self._shifts.get(organization_id, timedelta()) + timedelta(seconds=seconds)
