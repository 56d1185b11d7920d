"""What follows a change in auth elsewhere: jobs that call the other services' idempotent RPCs."""

from __future__ import annotations

from typing import Final

import grpc
import grpc.aio
from tollway.notification.v1 import notification_service_pb2

from mesh import jobs
from mesh.clock import Clock
from mesh.database import idempotency
from mesh.database.pools import Database
from mesh.rpc.client import Clients
from services.auth import store
from services.auth.keys import ANNOUNCE_KEY

CLEAN_UP: Final = "clean_up"
API_KEY_CREATED: Final = "api_key_created"


class Consequences:
    """Handlers of auth's jobs.

    Args:
        db: Auth's tables.
        clients: The other services.
        clock: Time of the clean-up.
    """

    def __init__(self, *, db: Database, clients: Clients, clock: Clock) -> None:
        self._db = db
        self._clients = clients
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {ANNOUNCE_KEY: self.announce_key, CLEAN_UP: self.clean_up}

    async def announce_key(self, job: jobs.Job) -> None:
        """Tell an organization's contact that a key was created; the job's id makes it one e-mail."""
        if job.organization_id is None:
            raise jobs.PermanentFailure("the job names no organization")
        async with self._db.tenant(job.organization_id) as tx:
            organization = await store.find_organization(tx, job.organization_id)
        if organization is None:
            raise jobs.PermanentFailure("the organization is gone")
        request = notification_service_pb2.SendEmailRequest(
            organization_id=str(job.organization_id),
            recipient=organization.contact_email,
            template=API_KEY_CREATED,
            parameters={"organization_name": organization.name, **job.payload},
            idempotency_key=str(job.job_id),
        )
        try:
            await self._clients.notification.SendEmail(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise jobs.PermanentFailure(repr(error)) from error
            raise

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await idempotency.remove_expired(self._db, self._clock)
        await jobs.remove_finished(self._db, self._clock)
