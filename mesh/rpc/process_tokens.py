"""Tokens that prove which of Tollway's processes calls: JWTs (RFC 7519) signed with the process's own Ed25519 key.

Every process holds one private key and knows the public keys of all, by process name. A token names its process
(`sub`), the one service that it is meant for (`aud`) and an end at most `PROCESS_TOKEN_SECONDS` after its beginning.

**What that gives.** Whoever has one process's key speaks for that process and for no other: the name in a token must be
the name that its key is known under, and one key stands under one name only. A service that sees a token cannot use it
elsewhere, because another service refuses the audience. The header `typ` chooses the verifier (this one or that of
sessions), each accepts EdDSA from its own keys and its own issuer, and so neither kind passes for the other.

**Rotation.** A name may have several public keys. Give every process the new public key beside the old one, then give
the process its new private key, then drop the old public key everywhere. Processes read keys at their start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh.clock import Clock

PROCESS_ISSUER: Final = "tollway-process"
PROCESS_TOKEN_TYPE: Final = "tollway-process+jwt"  # noqa: S105 - a name, not a token
PROCESS_ALGORITHM: Final = "EdDSA"
PROCESS_TOKEN_SECONDS: Final = 5 * 60
PROCESS_TOKEN_RENEW_SECONDS: Final = 60
CLOCK_SKEW_SECONDS: Final = 30
TOKEN_LENGTH_MAX: Final = 2_048
_KEY_ID_LENGTH: Final = 16


def public_key_of(seed: bytes) -> bytes:
    """Return the 32 bytes of the public key that belongs to a private key."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def key_id_of(public_key: bytes) -> str:
    """Return the id that tokens name a key by."""
    return hashlib.sha256(public_key).hexdigest()[:_KEY_ID_LENGTH]


class ProcessKeys:
    """The public keys of all processes.

    Args:
        named: Process names with 32-byte public keys; a name may come several times.

    Raises:
        ValueError: One key stands under two names.
    """

    def __init__(self, named: Iterable[tuple[str, bytes]]) -> None:
        self._keys: dict[str, tuple[str, Ed25519PublicKey]] = {}
        for name, public_key in named:
            known = self._keys.setdefault(key_id_of(public_key), (name, Ed25519PublicKey.from_public_bytes(public_key)))
            if known[0] != name:
                raise ValueError(f"{name} and {known[0]} have the same key")

    def find(self, key_id: object) -> tuple[str, Ed25519PublicKey]:
        """Return whose key this is, and the key.

        Raises:
            KeyError: Nobody's.
        """
        return self._keys[str(key_id)]


class ProcessTokens:
    """Makes this process's own tokens, one per service that it calls, and makes them anew in time.

    Args:
        seed: The 32 bytes of this process's private key.
        process: This process's name, for example `edge_proxy`.
        clock: Wall time.
    """

    def __init__(self, *, seed: bytes, process: str, clock: Clock) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._headers = {"kid": key_id_of(public_key_of(seed)), "typ": PROCESS_TOKEN_TYPE}
        self._process = process
        self._clock = clock
        self._made: dict[str, tuple[str, float]] = {}

    def bearer(self, audience: str) -> str:
        """Return the value of an `authorization` field for calls to one service."""
        now = self._clock.now().timestamp()
        token, made_at = self._made.get(audience, ("", float("-inf")))
        # A clock that was set back must not keep a token whose beginning lies far ahead.
        if not 0 <= now - made_at < PROCESS_TOKEN_SECONDS - PROCESS_TOKEN_RENEW_SECONDS:
            token = self._make(audience, int(now))
            self._made[audience] = (token, now)
        return f"Bearer {token}"

    def _make(self, audience: str, now: int) -> str:
        claims = {
            "iss": PROCESS_ISSUER,
            "sub": self._process,
            "aud": audience,
            "iat": now,
            "exp": now + PROCESS_TOKEN_SECONDS,
        }
        return jwt.encode(claims, self._key, PROCESS_ALGORITHM, headers=self._headers)


def read_process_token(token: str, keys: ProcessKeys, audience: str) -> dict[str, Any]:
    """Verify a process token and return its claims; `sub` is the process's name.

    Args:
        token: As it came, without `Bearer`.
        keys: The public keys of all processes.
        audience: The service that verifies.

    Raises:
        KeyError: It is signed with a key that is not among `keys`.
        jwt.InvalidTokenError: It is not valid.
    """
    name, key = keys.find(jwt.get_unverified_header(token).get("kid"))
    claims = jwt.decode(
        token,
        key,
        algorithms=[PROCESS_ALGORITHM],
        issuer=PROCESS_ISSUER,
        audience=audience,
        leeway=CLOCK_SKEW_SECONDS,
        options={"require": ["iss", "sub", "aud", "exp", "iat"], "strict_aud": True},
    )
    if claims["sub"] != name:
        raise jwt.InvalidTokenError("a process speaks for another")
    if claims["exp"] - claims["iat"] > PROCESS_TOKEN_SECONDS:
        raise jwt.InvalidTokenError("a process token that lives too long")
    return dict(claims)
