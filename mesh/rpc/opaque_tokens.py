"""The shape of tokens that are looked up: a prefix, 56 hex digits of randomness and a check sum.

The last 8 of the 64 lower-case hex digits are the CRC-32 (ISO 3309, as in zlib) of everything before them, the prefix
included. A typo, a cut-off paste or a guess is therefore refused without a look-up (a guess passes once in 2^32),
and a secret scanner can tell a real token from a look-alike. 224 bits of randomness remain.

API keys have the same shape (`contract/key_format.py`); they are the edge's matter.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

SERVICE_ACCOUNT_PREFIX: Final = "tw_sa_"
RANDOM_BYTES: Final = 28
_HINT_LENGTH: Final = 4
_BODY: Final = re.compile(r"[0-9a-f]{64}")


def mint(prefix: str, randomness: bytes) -> str:
    """Make a token.

    Args:
        prefix: Says what kind of token it is, for example `tw_sa_`.
        randomness: `RANDOM_BYTES` bytes from a cryptographic source.

    Raises:
        ValueError: The randomness has another length.
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"a token takes {RANDOM_BYTES} random bytes, not {len(randomness)}")
    body = prefix + randomness.hex()
    return body + _checksum(body)


def is_well_formed(token: str, prefix: str) -> bool:
    """Tell whether a token of this kind may exist; it costs microseconds and no look-up."""
    if not token.startswith(prefix) or _BODY.fullmatch(token, len(prefix)) is None:
        return False
    return _checksum(token[:-8]) == token[-8:]


def hint(token: str, prefix: str) -> str:
    """Return the part that may be shown: the prefix, and four characters from either end."""
    return f"{token[: len(prefix) + _HINT_LENGTH]}…{token[-_HINT_LENGTH:]}"


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"
