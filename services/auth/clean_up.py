"""What auth keeps for a while only, and removes daily: a list, so that a new table adds a line here.

Each entry removes what is due in parts of bounded size, each in a transaction of its own, and is safe to run twice,
late or on two replicas. One that fails does not keep the others from running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from mesh import jobs
from mesh.clock import Clock
from mesh.database import idempotency
from mesh.database.pools import Database
from services.auth import credentials, families, invitations, principal_changes, registrations, signing_keys

CleanUp = Callable[[Database, Clock], Awaitable[int]]
"""Removes what is due and returns how much it was."""

CLEAN_UPS: Final[Mapping[str, CleanUp]] = {
    "idempotency_keys": idempotency.remove_expired,
    "jobs": jobs.remove_finished,
    "registrations": registrations.remove_old,
    "principal_changes": principal_changes.remove_old,
    "invitations": invitations.remove_old,
    "credentials": credentials.remove_expired,
    "sessions": families.remove_ended,
    "refresh_tokens": families.remove_used_tokens,
    "signing_keys": signing_keys.remove_retired,
}

log = structlog.get_logger()


async def clean_up(db: Database, clock: Clock) -> None:
    """Remove all that is due.

    Raises:
        ExceptionGroup: What some of them failed with; the others have run.
    """
    failures: list[Exception] = []
    for name, remove in CLEAN_UPS.items():
        try:
            removed = await remove(db, clock)
        except Exception as error:  # noqa: BLE001 the loop's edge: one that fails must not keep the others from running
            failures.append(error)
        else:
            log.info("cleaned_up", what=name, removed=removed)
    if failures:
        raise ExceptionGroup("clean-up", failures)
