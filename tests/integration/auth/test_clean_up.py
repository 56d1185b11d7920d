"""Auth's daily job removes what is kept for a while only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.jobs import Job
from mesh.rpc.client import Clients
from services.auth import clean_up as module
from services.auth.clean_up import clean_up
from services.auth.clients import NotificationClient
from services.auth.jobs import AuthJobs
from tests.support.accounts import PASSWORD, mail, secret_box, seed_organization
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
        await AuthJobs(
            db=auth.db, notification=NotificationClient(clients), mail=mail(), box=secret_box(), clock=clock
        ).clean_up(job)
        async with auth.db.system() as tx:
            counts = "SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM jobs)"
            remaining.append(tuple(await tx.fetchrow(counts)))
    assert remaining == [(1, 1), (0, 1), (0, 0)]
    await clients.close()


async def test_sessions_go_a_day_after_their_end_and_used_tokens_when_they_would_have_expired(auth: Any) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    request = pb.CreateSessionRequest(email=owner.email, password=PASSWORD)
    ended, kept = [await auth.stub.CreateSession(request) for _ in range(2)]
    await auth.stub.RefreshSession(pb.RefreshSessionRequest(refresh_token=kept.refresh_token))
    bearer = [("authorization", f"Bearer {ended.access_token}")]
    await auth.stub.RevokeSession(pb.RevokeSessionRequest(), metadata=bearer)
    remaining = []
    for hours in (23, 25, 7 * 24 - 1, 7 * 24 + 1, 8 * 24 + 1):
        clock = ManualClock(datetime.now(UTC) + timedelta(hours=hours))
        await clean_up(auth.db, clock)
        async with auth.db.system() as tx:
            counts = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM refresh_tokens)"
            remaining.append(tuple(await tx.fetchrow(counts)))
    assert remaining == [(2, 3), (1, 2), (1, 2), (1, 1), (0, 0)]


async def test_a_clean_up_that_fails_does_not_keep_the_others_from_running(
    auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    async def fail(*_values: Any) -> int:
        raise OSError

    async def note(*_values: Any) -> int:
        ran.append(True)
        return 0

    monkeypatch.setattr(module, "CLEAN_UPS", {"broken": fail, "right": note})
    with pytest.raises(ExceptionGroup):
        await clean_up(auth.db, ManualClock(datetime.now(UTC)))
    assert ran == [True]
