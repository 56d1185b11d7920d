"""What follows a change of billing elsewhere: jobs that call the other services' idempotent RPCs."""

from __future__ import annotations

from uuid import UUID

import grpc
import grpc.aio
from tollway.auth.v1 import auth_service_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2

from mesh import jobs
from mesh.clock import Clock
from mesh.database import idempotency
from mesh.database.pools import Database
from mesh.rpc.client import Clients
from services.billing import convert, store
from services.billing.errors import UsageUnavailable
from services.billing.periods import Period
from services.billing.service import APPEND_AUDIT_ENTRY, PUT_POLICY

CLEAN_UP = "clean_up"


class Consequences:
    """Handlers of billing's jobs.

    Args:
        db: Billing's tables.
        clients: The other services.
        clock: Time of the clean-up.
    """

    def __init__(self, *, db: Database, clients: Clients, clock: Clock) -> None:
        self._db = db
        self._clients = clients
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {
            PUT_POLICY: self.put_policy,
            APPEND_AUDIT_ENTRY: self.append_audit_entry,
            CLEAN_UP: self.clean_up,
        }

    async def put_policy(self, job: jobs.Job) -> None:
        """Put the limits of a subscription's plan in force; an older version than the limiter's changes nothing."""
        organization_id = _organization(job)
        async with self._db.system() as tx:
            plan = await store.find_plan(tx, job.payload["plan_id"], job.payload["plan_version"])
        if plan is None:
            raise jobs.PermanentFailure("the plan's version is gone")
        policy = convert.to_policy(plan, organization_id=organization_id, version=job.payload["policy_version"])
        await self._clients.ratelimit.PutPolicy(ratelimit_service_pb2.PutPolicyRequest(policy=policy))

    async def append_audit_entry(self, job: jobs.Job) -> None:
        """Append to the audit log; the job's id is the entry's, so it is there once."""
        entry = auth_service_pb2.AuditEntry(
            audit_entry_id=str(job.job_id),
            organization_id=str(_organization(job)),
            actor=job.payload["actor"],
            action=job.payload["action"],
            resource=job.payload["resource"],
        )
        entry.details.update(job.payload["details"])
        entry.create_time.FromMicroseconds(job.payload["time_us"])
        await self._clients.auth.AppendAuditEntries(auth_service_pb2.AppendAuditEntriesRequest(entries=[entry]))

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await idempotency.remove_expired(self._db, self._clock)
        await jobs.remove_finished(self._db, self._clock)


class UsageReader:
    """Asks metering for usage.

    Args:
        clients: The other services.
    """

    def __init__(self, *, clients: Clients) -> None:
        self._clients = clients

    async def billable_requests(self, organization_id: UUID, period: Period) -> int:
        """Return an organization's billable requests in a period.

        Raises:
            UsageUnavailable: Metering does not answer.
        """
        try:
            answer = await self._clients.metering.QueryUsage(convert.to_usage_request(organization_id, period))
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise UsageUnavailable(repr(error)) from error
            raise
        return sum(row.billable_count for row in answer.rows)


def _organization(job: jobs.Job) -> UUID:
    if job.organization_id is None:
        raise jobs.PermanentFailure("the job names no organization")
    return job.organization_id
