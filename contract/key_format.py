"""The shape of an API key: a prefix, 56 hex digits of randomness and a check sum.

`sk_live_` or `sk_test_`, then 64 lower-case hex characters. The last 8 of them are the CRC-32 (ISO 3309, as in zlib)
of everything before them, prefix included. A typo or a guess is therefore refused without a look-up (a random guess
passes once in 2^32), and a secret scanner can tell a real key from a look-alike. 224 bits of randomness remain.

What is stored is HMAC-SHA-256 of the whole key under a versioned pepper, so a copy of the table opens nothing.

Keys that customers hold already, from another system, have any shape. They are known by their SHA-256 alone, and what
is stored is the HMAC of that under the same pepper, set apart by a label that no key can begin with.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from typing import Final

from tollway.auth.v1.auth_service_pb2 import KeyMode

RANDOM_BYTES: Final = 28
_PREFIXES: Final = {"sk_live_": KeyMode.KEY_MODE_LIVE, "sk_test_": KeyMode.KEY_MODE_TEST}
_PREFIX_OF: Final = {mode: prefix for prefix, mode in _PREFIXES.items()}
_IMPORTED_LABEL: Final = b"tollway imported key\0"
_SHAPE: Final = re.compile(r"sk_(?:live|test)_[0-9a-f]{64}")


def mint(mode: KeyMode.ValueType, randomness: bytes) -> str:
    """Make a key.

    Args:
        mode: Live or test.
        randomness: `RANDOM_BYTES` bytes from a cryptographic source.

    Raises:
        ValueError: The randomness has another length.
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"an API key takes {RANDOM_BYTES} random bytes, not {len(randomness)}")
    body = _PREFIX_OF[mode] + randomness.hex()
    return body + _checksum(body)


def parse(key: str) -> KeyMode.ValueType | None:
    """Return the mode of a well-formed key, or None where shape or check sum is wrong."""
    if _SHAPE.fullmatch(key) is None or _checksum(key[:-8]) != key[-8:]:
        return None
    return _PREFIXES[key[:8]]


def hint(key: str) -> str:
    """Return the part that may be shown: prefix, first and last four characters."""
    return f"{key[:12]}…{key[-4:]}"


def digest(key: str, pepper: bytes) -> bytes:
    """Return what is stored and looked up: HMAC-SHA-256 of the key, 32 bytes (RFC 2104)."""
    return hmac.digest(pepper, key.encode("ascii"), hashlib.sha256)


def imported_digest(sha256: bytes, pepper: bytes) -> bytes:
    """Return what is stored and looked up for an imported key.

    Args:
        sha256: SHA-256 of the key as it is sent, 32 bytes.
        pepper: As for a key of our own making.
    """
    return hmac.digest(pepper, _IMPORTED_LABEL + sha256, hashlib.sha256)


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"
