"""A policy that is put in force is told to the audit log with the one before; one that changes nothing is not."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import asyncpg
from tollway.auth.v1 import auth_service_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from mesh import jobs
from mesh.audit import AuditTrail
from mesh.clock import SystemClock
from services.ratelimit.jobs import RateLimitJobs
from tests.support.postgres import TestDatabase


def policy(organization_id: str, version: int, limit: int) -> pb.Policy:
    window = pb.Window(
        name="burst",
        kind=pb.WINDOW_KIND_TOKEN_BUCKET,
        limit=limit,
        period_seconds=60,
        scope=pb.WINDOW_SCOPE_ORGANIZATION,
    )
    return pb.Policy(organization_id=organization_id, version=version, windows=[window])


async def test_a_new_policy_is_audited_with_the_one_before(database: TestDatabase, running: Any) -> None:
    organization_id = str(uuid4())
    for version, limit in ((1, 10), (2, 20), (2, 30), (1, 40)):
        await running.put(policy(organization_id, version, limit))
    connection = await asyncpg.connect(database.dsn("ratelimit_system"))
    rows = await connection.fetch("SELECT job_id, kind, organization_id, payload FROM jobs ORDER BY job_id")
    await connection.close()
    told: list[auth_service_pb2.AuditEntry] = []

    class Auth:
        async def AppendAuditEntries(self, request: auth_service_pb2.AppendAuditEntriesRequest) -> None:
            told.extend(request.entries)

    handlers = RateLimitJobs(db=None, trail=AuditTrail(Auth()), clock=SystemClock()).handlers()  # type: ignore[arg-type]
    for row in rows:
        job = jobs.Job(**{**row, "payload": json.loads(row["payload"])}, attempt_count=1)
        await handlers[job.kind](job)
    first, second = told
    assert {(each.action, each.actor, each.actor_kind) for each in told} == {("policy.put", "billing", "process")}
    assert {each.organization_id for each in told} == {organization_id}
    assert not first.HasField("before")
    assert (dict(second.before)["version"], dict(second.after)["version"]) == (1, 2)
    assert [dict(each.after)["windows"][0]["limit"] for each in told] == [10, 20]
