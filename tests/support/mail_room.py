"""Auth's worker by hand: what it writes and would send, without notification and without waiting."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping

from mesh import jobs
from mesh.clock import Clock, SystemClock
from mesh.database.pools import Database
from mesh.jobs.queue import to_job
from services.auth.account_mail import AccountMail
from services.auth.mail import SEND_EMAIL
from services.auth.one_time import OneTimeTokens
from tests.support.accounts import PEPPER, mail

_DUE = """
UPDATE jobs SET state = 'running', lease_id = job_id, lease_expire_time = now()
WHERE job_id = (SELECT job_id FROM jobs WHERE state = 'queued' AND kind = ANY($1::text[]) ORDER BY job_id LIMIT 1)
RETURNING job_id, kind, organization_id, payload, attempt_count, trace_context
"""
_DONE = (
    "UPDATE jobs SET state = 'done', finish_time = now(), lease_id = NULL, lease_expire_time = NULL WHERE job_id = $1"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An e-mail that is about to be sent."""

    template: str
    recipient: str
    facts: Mapping[str, str]

    @property
    def token(self) -> str:
        return self.facts["token"]


class MailRoom:
    """Does the jobs that write e-mails and reads those that send them."""

    def __init__(self, db: Database, clock: Clock | None = None) -> None:
        self._db = db
        self._mail = mail()
        self.account_mail = AccountMail(
            db=db,
            mail=self._mail,
            tokens=OneTimeTokens(peppers={1: PEPPER}, random_bytes=secrets.token_bytes),
            clock=clock or SystemClock(),
        )

    async def letters(self) -> list[Letter]:
        """Returns the e-mails that were written since the last call, in order."""
        handlers = self.account_mail.handlers()
        found = []
        while job := await self._next([*handlers, SEND_EMAIL]):
            if job.kind == SEND_EMAIL:
                found.append(
                    Letter(
                        template=job.payload["template"],
                        recipient=job.payload["recipient"],
                        facts=self._mail.facts_of(job),
                    )
                )
            else:
                await handlers[job.kind](job)
            async with self._db.system() as tx:
                await tx.execute(_DONE, job.job_id)
        return found

    async def letter(self) -> Letter:
        """Returns the one e-mail that was written since the last call."""
        (letter,) = await self.letters()
        return letter

    async def _next(self, kinds: list[str]) -> jobs.Job | None:
        async with self._db.system() as tx:
            row = await tx.fetchrow(_DUE, kinds)
        return to_job(row) if row else None
