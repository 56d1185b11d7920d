"""Tokens that are sent by e-mail and are good once: to verify an address, to set a password, to join an organization.

A token is 256 random bits. What is stored is HMAC-SHA-256 of its purpose and the token under the newest pepper, so a
stolen table is worth nothing, and a token of one purpose is not known to another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

RANDOM_BYTES: Final = 32
TOKEN_LENGTH: Final = 43
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class Purpose(Enum):
    """What a token is good for."""

    REGISTRATION = "registration"
    EMAIL_CHANGE = "email_change"
    PASSWORD_RESET = "password_reset"  # noqa: S105 it names a purpose
    INVITATION = "invitation"


class OneTimeTokens:
    """Makes tokens and finds out what is stored for them.

    Args:
        peppers: Peppers by version; new digests are made with the highest.
        random_bytes: A cryptographic source of randomness.
    """

    def __init__(self, *, peppers: Mapping[int, bytes], random_bytes: Callable[[int], bytes]) -> None:
        self._peppers = dict(peppers)
        self._random_bytes = random_bytes

    def mint(self, purpose: Purpose) -> tuple[str, bytes]:
        """Return a new token (43 characters, URL-safe) and the 32 bytes that are stored for it."""
        token = base64.urlsafe_b64encode(self._random_bytes(RANDOM_BYTES)).rstrip(b"=").decode()
        return token, _digest(purpose, token, self._peppers[max(self._peppers)])

    def digests(self, purpose: Purpose, token: str) -> list[bytes]:
        """Return what may be stored for a token; nothing for what is no token, so that it costs no query."""
        if len(token) != TOKEN_LENGTH or not _ALPHABET.issuperset(token):
            return []
        return [_digest(purpose, token, pepper) for pepper in self._peppers.values()]


def _digest(purpose: Purpose, token: str, pepper: bytes) -> bytes:
    return hmac.new(pepper, f"{purpose.value}\n{token}".encode(), hashlib.sha256).digest()
