"""What people see and change of themselves, passwords and addresses apart."""

from __future__ import annotations

from uuid import UUID

from mesh.database.pools import Database
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.errors import PersonNotFound
from services.auth.model import Profile


class People:
    """Shows people themselves.

    Args:
        db: People and their memberships.
        audit: Is told of changes.
    """

    def __init__(self, *, db: Database, audit: AuditLog) -> None:
        self._db = db
        self._audit = audit

    async def get(self, person_id: UUID) -> Profile:
        """Return what a person is shown of themselves.

        Raises:
            PersonNotFound: There is none, or no longer.
        """
        async with self._db.system() as tx:
            profile = await store.people.find_profile(tx, person_id)
        if profile is None:
            raise PersonNotFound
        return profile

    async def rename(self, person_id: UUID, name: str) -> Profile:
        """Change a person's display name.

        Raises:
            PersonNotFound: There is none, or no longer.
        """
        async with self._db.system() as tx:
            await store.people.set_name(tx, person_id, name)
            profile = await store.people.find_profile(tx, person_id)
            if profile is None:
                raise PersonNotFound
            await self._audit.note_person(tx, person_id, action="person.update", details={"fields": ["name"]})
        return profile
