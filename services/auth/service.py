"""Rules and transactions of the audit log and the look-up of keys."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.clock import Clock
from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import append
from services.auth.model import AuditEntry, KeyGrant


class Accounts:
    """Answers what a key may do.

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

    async def append_audit_entries(self, entries: Sequence[AuditEntry]) -> int:
        """Append entries of other services and return how many were new."""
        async with self._db.system() as tx:
            # In id order, so that two senders of the same entries cannot wait for each other.
            ordered = sorted(entries, key=lambda entry: (entry.organization_id, entry.audit_entry_id))
            return sum([await append(tx, entry) for entry in ordered])
