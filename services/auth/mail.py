"""E-mails as outbox jobs: written in the transaction of the fact that they tell of, sent by auth's worker.

What is secret in an e-mail (a token) is sealed in the job's payload, so that whoever reads the table cannot use it.
Templates put a token behind the link as its fragment: browsers send that to no server, so it is in no server's log.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from mesh import jobs
from mesh.database.connection import Connection
from mesh.ids import IdSource
from mesh.rpc.call import current_call
from mesh.secretbox import Sealed, SecretBox
from services.auth.audit import INSTALLATION
from services.auth.throttle import network_of

SEND_EMAIL: Final = "send_email"


class Page(Enum):
    """A page of the dashboard that e-mails lead to, below the dashboard's address."""

    SIGN_IN = "sign-in"
    VERIFY_EMAIL = "verify-email"
    FORGOTTEN_PASSWORD = "forgotten-password"  # noqa: S105 it names a page
    RESET_PASSWORD = "reset-password"  # noqa: S105 it names a page
    INVITATION = "invitation"


def shown_time(instant: datetime) -> str:
    """Return an instant as e-mails show it."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def shown_address() -> str:
    """Return where the call that is being handled comes from, as e-mails show it."""
    return network_of(current_call().address) or "unknown"


class Mail:
    """Writes jobs that send e-mails, and reads them.

    Args:
        box: Seals what is secret.
        ids: Ids of jobs.
        dashboard_url: Where links lead, without a slash at its end.
    """

    def __init__(self, *, box: SecretBox, ids: IdSource, dashboard_url: str) -> None:
        self._box = box
        self._ids = ids
        self._dashboard_url = dashboard_url

    def link(self, page: Page) -> str:
        """Return the address of a page; what templates call `link`."""
        return f"{self._dashboard_url}/{page.value}"

    async def enqueue(
        self,
        tx: Connection,
        template: str,
        *,
        recipient: str,
        organization_id: UUID | None,
        facts: Mapping[str, str],
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Have an e-mail sent once the transaction is committed.

        Args:
            tx: The transaction of the fact.
            template: A template of notification.
            recipient: Where it goes.
            organization_id: Whose e-mail it is; None where it is nobody's but the recipient's (`db.system()` only).
            facts: What the template says.
            secrets: What it says and nobody else may read.
        """
        job_id = self._ids.uuid7()
        sealed = self._box.seal(json.dumps(dict(secrets or {})).encode(), job_id.bytes)
        payload = {
            "template": template,
            "recipient": recipient,
            "facts": dict(facts),
            "data_key_version": sealed.key_version,
            "secrets": base64.b64encode(sealed.ciphertext).decode(),
        }
        owner = organization_id or INSTALLATION
        await jobs.enqueue(tx, SEND_EMAIL, payload, job_id=job_id, organization_id=owner)

    def facts_of(self, job: jobs.Job) -> dict[str, str]:
        """Return all that an e-mail's template says.

        Raises:
            SealBroken: What is secret cannot be opened.
        """
        payload: Mapping[str, Any] = job.payload
        sealed = Sealed(key_version=payload["data_key_version"], ciphertext=base64.b64decode(payload["secrets"]))
        return {**payload["facts"], **json.loads(self._box.open(sealed, job.job_id.bytes))}
