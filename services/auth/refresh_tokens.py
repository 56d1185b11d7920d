"""Refresh tokens: what a client shows to have its session renewed.

`tw_rt_` and the random part with the check sum of all opaque tokens (`mesh/rpc/opaque_tokens.py`). What is no refresh
token of ours, any other kind of token for one, is refused without a look-up. What is stored is HMAC-SHA-256 of purpose
and token under a versioned pepper, so a copy of the table opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.rpc import opaque_tokens

PREFIX: Final = "tw_rt_"
_PURPOSE: Final = b"refresh_token\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedToken:
    """A new refresh token and what is stored of it."""

    token: str = field(repr=False)
    digest: bytes = field(repr=False)
    pepper_version: int


class RefreshTokens:
    """Makes refresh tokens and finds out what is stored for them.

    Args:
        peppers: Peppers by version; new digests are made with the highest.
        random_bytes: A cryptographic source of randomness.
    """

    def __init__(self, *, peppers: Mapping[int, bytes], random_bytes: Callable[[int], bytes]) -> None:
        self._peppers = dict(peppers)
        self._newest = max(peppers)
        self._random_bytes = random_bytes

    def mint(self) -> MintedToken:
        """Make a token."""
        token = opaque_tokens.mint(PREFIX, self._random_bytes(opaque_tokens.RANDOM_BYTES))
        return MintedToken(token=token, digest=_digest(token, self._peppers[self._newest]), pepper_version=self._newest)

    def digests(self, token: str) -> list[bytes]:
        """Return what may be stored for a token (32 bytes each); nothing for what is none: it costs no query."""
        if not is_refresh_token(token):
            return []
        return [_digest(token, pepper) for pepper in self._peppers.values()]


def is_refresh_token(text: str) -> bool:
    """Tell whether a text has the shape and the check sum of a refresh token."""
    return opaque_tokens.is_well_formed(text, PREFIX)


def _digest(token: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, _PURPOSE + token.encode("ascii"), hashlib.sha256)
