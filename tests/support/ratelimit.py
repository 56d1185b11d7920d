"""Policies for tests."""

from __future__ import annotations

from uuid import UUID

from contract.windows import Window, WindowKind, WindowScope
from services.ratelimit.model import Policy

ORGANIZATION = UUID("01900000-0000-7000-8000-00000000000a")
OTHER_ORGANIZATION = UUID("01900000-0000-7000-8000-00000000000b")
API_KEY = UUID("01900000-0000-7000-8000-0000000000aa")


def bucket(
    limit: int = 10, period_seconds: int = 60, scope: WindowScope = WindowScope.ORGANIZATION, name: str = "burst"
) -> Window:
    """Returns a token bucket."""
    return Window(
        name=name,
        kind=WindowKind.TOKEN_BUCKET,
        scope=scope,
        limit=limit,
        period_seconds=period_seconds,
        counts_billable_only=False,
    )


def sliding(
    limit: int = 10, period_seconds: int = 60, scope: WindowScope = WindowScope.ORGANIZATION, name: str = "sliding"
) -> Window:
    """Returns a sliding window."""
    return Window(
        name=name,
        kind=WindowKind.SLIDING,
        scope=scope,
        limit=limit,
        period_seconds=period_seconds,
        counts_billable_only=False,
    )


def month(
    limit: int = 1_000, scope: WindowScope = WindowScope.ORGANIZATION, *, billable: bool = True, name: str = "month"
) -> Window:
    """Returns a quota per calendar month."""
    return Window(
        name=name,
        kind=WindowKind.CALENDAR_MONTH,
        scope=scope,
        limit=limit,
        period_seconds=0,
        counts_billable_only=billable,
    )


def day(limit: int = 100, scope: WindowScope = WindowScope.ORGANIZATION, name: str = "day") -> Window:
    """Returns a limit per calendar day that counts every request."""
    return Window(
        name=name,
        kind=WindowKind.CALENDAR_DAY,
        scope=scope,
        limit=limit,
        period_seconds=0,
        counts_billable_only=False,
    )


def policy(*windows: Window, version: int = 1, organization_id: UUID = ORGANIZATION) -> Policy:
    """Returns a policy."""
    return Policy(organization_id=organization_id, version=version, windows=windows)
