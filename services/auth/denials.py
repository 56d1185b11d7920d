"""Puts refused sign-ins and denied calls into the audit log; `mesh/rpc/denials` counts them.

A sign-in belongs to the organizations of the account's owner, so that they see who tries. What belongs to nobody, an
account that does not exist for example, belongs to the installation: organization `INSTALLATION`, which the operator's
people may list like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from mesh.audit import denial_details
from mesh.clock import Clock
from mesh.database.pools import Connection, Database
from mesh.ids import IdSource
from mesh.rpc import denials
from mesh.rpc.access import PrincipalKind
from mesh.rpc.denials import OTHERS, CountedDenial, Denial
from services.auth import store
from services.auth.audit import INSTALLATION, append
from services.auth.model import AuditEntry

SIGN_IN: Final = "session.deny"
_NAME_LENGTH_MAX: Final = 254
_NOT_AN_ADDRESS: Final = "(not an e-mail address)"


class Denials(denials.Denials):
    """Counts denials and writes them into the audit log. `run` it in the background.

    Args:
        db: Where the audit log is.
        clock: Times of entries.
        ids: Ids of entries.
    """

    def __init__(self, *, db: Database, clock: Clock, ids: IdSource) -> None:
        super().__init__(take=self._append, clock=clock, ids=ids)
        self._db = db

    def note_sign_in(self, *, email: str, address: str, reason: str) -> None:
        """Note a sign-in that was refused. What is no e-mail address may be a password in the wrong field."""
        account = email if "@" in email and email.isprintable() else _NOT_AN_ADDRESS
        self.note(
            Denial(
                action=SIGN_IN,
                # Whoever signs in chooses the account.
                source=address,
                actor=account[:_NAME_LENGTH_MAX],
                actor_kind=PrincipalKind.ANYONE.name.lower(),
                address=address,
                reason=reason,
                resource="",
            )
        )

    async def _append(self, batch: Sequence[CountedDenial]) -> None:
        async with self._db.system() as tx:
            for counted in batch:
                for organization_id, resource in await self._belongs_to(tx, counted.denial):
                    await append(tx, _entry(counted, organization_id, resource))

    async def _belongs_to(self, tx: Connection, denial: Denial) -> list[tuple[UUID, str]]:
        if denial.action != SIGN_IN:
            return [(denial.organization_id or INSTALLATION, denial.resource)]
        person = None if denial.actor == OTHERS else await store.people.find_by_email(tx, denial.actor)
        if person is None:
            return [(INSTALLATION, "person/unknown")]
        memberships = await store.people.list_memberships(tx, person.person_id)
        resource = f"person/{person.person_id}"
        return [(membership.organization_id, resource) for membership in memberships] or [(INSTALLATION, resource)]


def _entry(counted: CountedDenial, organization_id: UUID, resource: str) -> AuditEntry:
    denial = counted.denial
    return AuditEntry(
        # One id in several organizations: an entry is known by both.
        audit_entry_id=counted.denial_id,
        organization_id=organization_id,
        actor=denial.actor,
        actor_kind=denial.actor_kind,
        action=denial.action,
        resource=resource,
        address=denial.address,
        details={"address": denial.address, **denial_details(counted)},
        create_time=counted.last_time,
    )
