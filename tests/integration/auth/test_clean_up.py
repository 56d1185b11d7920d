"""Auth's daily job removes what is kept for a while only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.jobs import Job
from mesh.rpc.client import Clients
from services.auth.clients import NotificationClient
from services.auth.jobs import AuthJobs
from tests.support.accounts import mail, seed_organization
from tests.support.processes import process_fields


async def test_idempotency_rows_and_done_jobs_go(auth: Any) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    request = pb.CreateApiKeyRequest(organization_id=str(owner.organization_id), name="ci", idempotency_key="k")
    await auth.stub.CreateApiKey(request, metadata=auth.person(owner.owner_id, owner.organization_id))
    async with auth.db.system() as tx:
        await tx.execute("UPDATE jobs SET state = 'done', finish_time = now()")
    clients = Clients(ProcessSettings(**process_fields("auth")), process="auth")
    job = Job(job_id=RandomIds().uuid7(), kind="clean_up", organization_id=None, payload={}, attempt_count=1)
    remaining = []
    for days in (0, 2, 8):
        clock = ManualClock(datetime.now(UTC) + timedelta(days=days))
        await AuthJobs(db=auth.db, notification=NotificationClient(clients), mail=mail(), clock=clock).clean_up(job)
        async with auth.db.system() as tx:
            counts = "SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM jobs)"
            remaining.append(tuple(await tx.fetchrow(counts)))
    assert remaining == [(1, 1), (0, 1), (0, 0)]
    await clients.close()
