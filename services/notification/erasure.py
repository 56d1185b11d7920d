"""Forgets who e-mails went to: what is stored of an address goes, whatever became of the e-mails."""

from __future__ import annotations

from typing import Final

from mesh.database.pools import Database
from services.notification import store

REMOVED_AT_ONCE_MAX: Final = 1_000


class Erasure:
    """Removes e-mails by their recipient.

    Args:
        db: Notification's tables.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def erase_recipient(self, recipient: str) -> int:
        """Remove all e-mails to an address, in parts, and return how many there were; twice does what once does."""
        removed = 0
        while True:
            async with self._db.system() as tx:
                count = await store.remove_emails_to(tx, recipient.lower(), limit=REMOVED_AT_ONCE_MAX)
            removed += count
            if count < REMOVED_AT_ONCE_MAX:
                return removed
