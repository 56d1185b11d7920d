"""Passwords: argon2id (RFC 9106), off the event loop, and as slow for a stranger as for a customer.

A hash takes tens of milliseconds and 64 MiB by design, so it runs in a thread and only a few run at once: a flood of
sign-ins must not take the memory of the process. An address that nobody has is verified against a dummy hash, so the
time of the answer does not tell whether an account exists.
"""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

HASHES_AT_ONCE_MAX: Final = 4
PASSWORD_LENGTH_MAX: Final = 1_024

_HASHER: Final = PasswordHasher()


def hash_password(password: str) -> str:
    """Hash a password for storage; blocks for tens of milliseconds."""
    return _HASHER.hash(password)


class Passwords:
    """Verifies passwords without holding up the event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(HASHES_AT_ONCE_MAX)
        self._dummy_hash = hash_password("a password that nobody has")

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Tell whether a password fits a hash; without a hash it never does, after the same work.

        Args:
            password_hash: What is stored, or None where there is no such account.
            password: What was typed, at most `PASSWORD_LENGTH_MAX` characters.
        """
        async with self._slots:
            fits = await asyncio.to_thread(_verify, password_hash or self._dummy_hash, password)
        return fits and password_hash is not None

    async def rehash(self, password_hash: str, password: str) -> str | None:
        """Return a hash under today's parameters where the stored one is under older ones, else None."""
        if not _HASHER.check_needs_rehash(password_hash):
            return None
        async with self._slots:
            return await asyncio.to_thread(hash_password, password)


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
