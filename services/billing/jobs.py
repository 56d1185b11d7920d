"""Billing's jobs: what follows a change elsewhere, and the daily clean-up."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from mesh import audit, jobs
from mesh.clock import Clock
from mesh.database import idempotency
from mesh.database.pools import Database
from services.billing import store
from services.billing.clients import LimitsWriter
from services.billing.service import PUT_POLICY

CLEAN_UP: Final = "clean_up"


class BillingJobs:
    """Handlers of billing's jobs.

    Args:
        db: Billing's tables.
        limits: Puts limits in force.
        trail: Hands audit entries on.
        clock: Time of the clean-up.
    """

    def __init__(self, *, db: Database, limits: LimitsWriter, trail: audit.AuditTrail, clock: Clock) -> None:
        self._db = db
        self._limits = limits
        self._trail = trail
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {
            PUT_POLICY: self.put_policy,
            audit.APPEND: self._trail.append,
            CLEAN_UP: self.clean_up,
        }

    async def put_policy(self, job: jobs.Job) -> None:
        """Put the limits of a subscription's plan in force; an older version than the limiter's changes nothing."""
        organization_id = _organization(job)
        async with self._db.system() as tx:
            plan = await store.find_plan(tx, job.payload["plan_id"], job.payload["plan_version"])
        if plan is None:
            raise jobs.PermanentFailure("the plan's version is gone")
        await self._limits.put(plan, organization_id=organization_id, version=job.payload["policy_version"])

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await idempotency.remove_expired(self._db, self._clock)
        await jobs.remove_finished(self._db, self._clock)


def _organization(job: jobs.Job) -> UUID:
    if job.organization_id is None:
        raise jobs.PermanentFailure("the job names no organization")
    return job.organization_id
