"""The audit log: who did what to whom, from where, and what was different afterwards.

An entry is written in the transaction of the change that it tells of, so there is no change without its entry and no
entry without its change. Who calls, from where and within which request is taken from the call that is being handled.

Entries are for good, and people may have themselves erased. So what tells who somebody is (e-mail addresses, names)
does not stand in an entry: it is set aside in a table of its own, from which it can be removed (ADR 0043).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.ids import IdSource
from mesh.rpc.access import PrincipalKind, current_principal
from mesh.rpc.call import current_call
from services.auth import store
from services.auth.model import AuditEntry
from services.auth.personal_values import set_aside

INSTALLATION: Final = UUID(int=0)
"""What belongs to no organization is listed under this one."""
SELF: Final = "auth"
"""The actor of what auth does by itself, for example in a job."""


class AuditLog:
    """Writes entries.

    Args:
        clock: Time of entries.
        ids: Ids of entries.
    """

    def __init__(self, *, clock: Clock, ids: IdSource) -> None:
        self._clock = clock
        self._ids = ids

    async def note(
        self,
        tx: Connection,
        *,
        organization_id: UUID | None,
        action: str,
        resource: str,
        actor: UUID | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an entry.

        Args:
            tx: The transaction of the change.
            organization_id: Whose log; None means the installation's (`db.system()` alone may write that).
            action: `<resource>.<verb>`, for example `api_key.revoke`.
            resource: `<resource>/<id>`.
            actor: The person, where they have proved who they are within this call and not by a token.
            before: What was there, as far as it changed; values that JSON has, no secrets.
            after: What is there now, likewise.
            details: Whatever else; no secrets.
        """
        principal, call = current_principal(), current_call()
        kind = PrincipalKind.PERSON if actor else principal.kind
        subject = str(actor) if actor else principal.subject
        if kind is PrincipalKind.ANYONE and not call.peer:
            kind, subject = PrincipalKind.PROCESS, SELF
        entry = AuditEntry(
            audit_entry_id=self._ids.uuid7(),
            organization_id=organization_id or INSTALLATION,
            actor=subject or "anyone",
            actor_kind=kind.name.lower(),
            action=action,
            resource=resource,
            details=dict(details or {}),
            create_time=self._clock.now(),
            address=call.address,
            request_id=call.request_id,
            before=before,
            after=after,
        )
        await append(tx, entry)

    async def note_person(
        self,
        tx: Connection,
        person_id: UUID,
        *,
        action: str,
        actor: UUID | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an entry about a person's account in the log of each organization that they are a member of.

        Args:
            tx: The transaction of the change, of `db.system()`.
            person_id: Whose account.
            action: As for `note`.
            actor: As for `note`.
            details: As for `note`; neither names nor addresses, because an entry outlives the account.
        """
        memberships = await store.people.list_memberships(tx, person_id)
        for organization_id in [membership.organization_id for membership in memberships] or [INSTALLATION]:
            await self.note(
                tx,
                organization_id=organization_id,
                action=action,
                resource=f"person/{person_id}",
                actor=actor,
                details=details,
            )


async def append(tx: Connection, entry: AuditEntry) -> bool:
    """Append an entry, what tells who somebody is set aside; False where one with its id is there already."""
    taken_out = set_aside(entry)
    if not await store.audit.append(tx, taken_out.entry, personal_count=len(taken_out.values)):
        return False
    await store.audit.append_personal_values(tx, taken_out.entry, taken_out.values)
    return True
