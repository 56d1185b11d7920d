"""Auth's jobs: what follows a change elsewhere, and the daily clean-up."""

from __future__ import annotations

from typing import Final

from mesh import jobs
from mesh.clock import Clock
from mesh.database.pools import Database
from mesh.database.resealing import reseal
from mesh.secretbox import SealBroken, SecretBox
from services.auth import store
from services.auth.clean_up import clean_up
from services.auth.clients import API_KEY_CREATED, NotificationClient
from services.auth.key_making import ANNOUNCE_KEY
from services.auth.mail import SEND_EMAIL, Mail
from services.auth.resealing import SEALED_TABLES

CLEAN_UP: Final = "clean_up"
RESEAL: Final = "reseal"


class AuthJobs:
    """Handlers of auth's jobs.

    Args:
        db: Auth's tables.
        notification: Sends e-mails.
        mail: Reads jobs that send e-mails.
        box: Seals anew what is sealed under an older key.
        clock: Time of the clean-up.
    """

    def __init__(
        self, *, db: Database, notification: NotificationClient, mail: Mail, box: SecretBox, clock: Clock
    ) -> None:
        self._db = db
        self._box = box
        self._mail = mail
        self._notification = notification
        self._clock = clock

    def handlers(self) -> dict[str, jobs.Handler]:
        """Return the handlers by kind."""
        return {
            ANNOUNCE_KEY: self.announce_key,
            SEND_EMAIL: self.send_email,
            CLEAN_UP: self.clean_up,
            RESEAL: self.reseal,
        }

    async def announce_key(self, job: jobs.Job) -> None:
        """Tell whoever an organization is reached through that a key was created."""
        if job.organization_id is None:
            raise jobs.PermanentFailure("the job names no organization")
        async with self._db.tenant(job.organization_id) as tx:
            organization = await store.organizations.find(tx, job.organization_id)
            contact = await store.organizations.find_contact(tx, job.organization_id)
        if organization is None or contact is None:
            raise jobs.PermanentFailure("the organization is gone, or has nobody to be written to")
        await self._notification.send_email(
            API_KEY_CREATED,
            organization_id=job.organization_id,
            recipient=contact,
            facts={"organization_name": organization.name, **job.payload},
            job_id=job.job_id,
        )

    async def send_email(self, job: jobs.Job) -> None:
        """Send what `Mail` has written down."""
        if job.organization_id is None:
            raise jobs.PermanentFailure("the job names no organization")
        try:
            facts = self._mail.facts_of(job)
        except SealBroken as error:
            raise jobs.PermanentFailure(repr(error)) from error
        await self._notification.send_email(
            job.payload["template"],
            organization_id=job.organization_id,
            recipient=job.payload["recipient"],
            facts=facts,
            job_id=job.job_id,
        )

    async def clean_up(self, _job: jobs.Job) -> None:
        """Remove what is kept for a while only."""
        await clean_up(self._db, self._clock)

    async def reseal(self, _job: jobs.Job) -> None:
        """Seal what is sealed under an older data key anew."""
        for table in SEALED_TABLES:
            await reseal(self._db, self._box, table)
