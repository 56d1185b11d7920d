"""Seals secrets that have to be stored and read again: AES-256-GCM under versioned data keys.

The version of the key stands in a column beside the sealed bytes, so old rows stay readable while new ones use the
newest key, and a rotation can find what is left under an old one. The context (for example the row's identity) is
authenticated along: sealed bytes that were moved to another row do not open. The nonce is 96 random bits (NIST SP
800-38D section 8.2.2), which is sound for far fewer than 2^32 messages per key; rotate long before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12


class SealBroken(Exception):
    """Sealed bytes do not open: another key, another context, or they were changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed secret and the version of the key that it is sealed with."""

    key_version: int
    ciphertext: bytes


class SecretBox:
    """Seals and opens.

    Args:
        keys: 32-byte keys by version; the highest version seals.
        random_bytes: Source of nonces.
    """

    def __init__(self, keys: Mapping[int, bytes], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._ciphers = {version: AESGCM(key) for version, key in keys.items()}
        self._newest = max(keys)
        self._random_bytes = random_bytes

    @property
    def newest_version(self) -> int:
        """Return the version of the key that seals."""
        return self._newest

    def seal(self, secret: bytes, context: bytes) -> Sealed:
        """Seal a secret for one context."""
        nonce = self._random_bytes(NONCE_BYTES)
        ciphertext = nonce + self._ciphers[self._newest].encrypt(nonce, secret, context)
        return Sealed(key_version=self._newest, ciphertext=ciphertext)

    def open(self, sealed: Sealed, context: bytes) -> bytes:
        """Open what was sealed for this context.

        Raises:
            SealBroken: It does not open.
        """
        cipher = self._ciphers.get(sealed.key_version)
        if cipher is None:
            raise SealBroken(f"there is no data key of version {sealed.key_version}")
        nonce, ciphertext = sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, ciphertext, context)
        except (InvalidTag, ValueError) as error:
            raise SealBroken("sealed bytes were changed or belong elsewhere") from error
