"""Session tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037) by `auth`, verified by every service on its own.

`auth` alone holds the private key and publishes the public one as a key set (RFC 7517). Tollway's own processes prove
themselves with another kind of token (`process_tokens`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh.clock import Clock
from mesh.ids import IdSource

ISSUER: Final = "tollway"
SESSION_ALGORITHM: Final = "EdDSA"
SESSION_SECONDS: Final = 15 * 60


class SessionSigner:
    """Signs session tokens; held by `auth` alone.

    Args:
        seed: The 32 bytes of an Ed25519 private key.
        clock: Wall time.
        ids: Where token ids come from.
    """

    def __init__(self, *, seed: bytes, clock: Clock, ids: IdSource) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._key_id = hashlib.sha256(self._key.public_key().public_bytes_raw()).hexdigest()[:16]
        self._clock = clock
        self._ids = ids

    def issue(
        self, *, person_id: UUID, organization_id: UUID, role: str, platform_roles: Sequence[str] = ()
    ) -> tuple[str, datetime]:
        """Return a token and the instant from which on it is refused."""
        now = self._clock.now()
        expire_time = now + timedelta(seconds=SESSION_SECONDS)
        claims = {
            "iss": ISSUER,
            "sub": str(person_id),
            "org": str(organization_id),
            "role": role,
            "prole": list(platform_roles),
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": str(self._ids.uuid7()),
        }
        return jwt.encode(claims, self._key, SESSION_ALGORITHM, headers={"kid": self._key_id}), expire_time

    def jwks_json(self) -> str:
        """Return the public key as a JSON Web Key Set."""
        public = jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**public, "kid": self._key_id, "use": "sig", "alg": SESSION_ALGORITHM}]})


def read_jwks(jwks_json: str) -> dict[str, Ed25519PublicKey]:
    """Return the Ed25519 keys of a key set by their ids."""
    keys = {}
    for entry in json.loads(jwks_json)["keys"]:
        key = jwt.algorithms.OKPAlgorithm.from_jwk(entry)
        if isinstance(key, Ed25519PublicKey):
            keys[str(entry["kid"])] = key
    return keys


def read_session_token(token: str, keys: dict[str, Ed25519PublicKey]) -> dict[str, Any]:
    """Verify a session token and return its claims.

    Raises:
        KeyError: It is signed with a key that is not among `keys`.
        jwt.InvalidTokenError: It is not valid.
    """
    key_id = jwt.get_unverified_header(token).get("kid", "")
    return dict(
        jwt.decode(
            token,
            keys[key_id],
            algorithms=[SESSION_ALGORITHM],
            issuer=ISSUER,
            leeway=0,
            options={"require": ["sub", "org", "role", "exp", "iat"]},
        )
    )
