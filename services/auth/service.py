"""Rules and transactions of organizations, the audit log and the look-up of keys."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from mesh.clock import Clock
from mesh.database.pools import Database
from services.auth import store
from services.auth.errors import OrganizationNotFound
from services.auth.model import AuditEntry, KeyGrant, Organization


class Accounts:
    """Answers who an organization or a key is.

    Args:
        db: Auth's tables.
        clock: Time.
    """

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def resolve_keys(self, digests: Sequence[bytes]) -> list[KeyGrant]:
        """Return the grants of the digests that are known.

        Nothing is written, so a key that is refused takes no other time than one that is unknown.
        """
        async with self._db.system() as tx:
            return await store.keys.find_grants(tx, digests)

    async def get_organization(self, organization_id: UUID) -> Organization:
        """Return an organization.

        Raises:
            OrganizationNotFound: There is none.
        """
        async with self._db.read(organization_id) as tx:
            organization = await store.organizations.find(tx, organization_id)
        if organization is None:
            raise OrganizationNotFound
        return organization

    async def append_audit_entries(self, entries: Sequence[AuditEntry]) -> int:
        """Append entries of other services and return how many were new."""
        async with self._db.system() as tx:
            # In id order, so that two senders of the same entries cannot wait for each other.
            ordered = sorted(entries, key=lambda entry: (entry.organization_id, entry.audit_entry_id))
            return sum([await store.audit.append(tx, entry) for entry in ordered])
