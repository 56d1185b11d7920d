"""Session tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037) by `auth`, verified by every service on its own.

`auth` alone holds private keys and publishes the public ones as a key set (RFC 7517). Tollway's own processes prove
themselves with another kind of token (`process_tokens`).

A verifier accepts one form only (RFC 8725): three segments without padding, and a header with `alg` EdDSA, `typ`
`tw-session+jwt` and a `kid` of the key set, written in the one way in which `auth` writes it. So a token cannot bring a
key along (`jwk`, `jku`, `x5u`, `x5c`), ask for an extension (`crit`) or choose how it is verified. All claims below are
there with the types that they should have, for this issuer and audience, and the token does not live longer than tokens
do.

| claim | what it says |
|---|---|
| `iss` `aud` | `tollway`, both |
| `sub` `org` `sid` | person, organization and session, UUIDs |
| `role` `prole` | the person's role there; their roles as part of the operator's people, a list |
| `mv` | the version of the membership that the role was read from, an integer |
| `iat` `exp` | beginning and end, integers, Unix time in seconds |
| `jti` | the token's own id |
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh.clock import Clock
from mesh.ids import IdSource
from mesh.rpc.process_tokens import CLOCK_SKEW_SECONDS

ISSUER: Final = "tollway"
SESSION_AUDIENCE: Final = "tollway"
SESSION_TOKEN_TYPE: Final = "tw-session+jwt"  # noqa: S105 - a name, not a token
SESSION_ALGORITHM: Final = "EdDSA"
SESSION_SECONDS: Final = 15 * 60
PLATFORM_ROLES_MAX: Final = 10
_KEY_ID_LENGTH: Final = 16
_HEADERS_REMEMBERED_MAX: Final = 256
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
_JWS: Final = jwt.PyJWS(algorithms=[SESSION_ALGORITHM])


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims:
    """What a session token says, verified."""

    person_id: UUID
    organization_id: UUID
    session_id: UUID
    role: str
    platform_roles: tuple[str, ...]
    membership_version: int
    issue_time_s: int
    expire_time_s: int


class SessionSigner:
    """Signs session tokens with one key; held by `auth` alone.

    Args:
        seed: The 32 bytes of an Ed25519 private key.
        clock: Wall time.
        ids: Where token ids come from.
    """

    def __init__(self, *, seed: bytes, clock: Clock, ids: IdSource) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._headers = {"kid": session_key_id(self._key.public_key()), "typ": SESSION_TOKEN_TYPE}
        self._clock = clock
        self._ids = ids

    def issue(
        self,
        *,
        person_id: UUID,
        organization_id: UUID,
        role: str,
        platform_roles: Sequence[str] = (),
        session_id: UUID | None = None,
        membership_version: int = 1,
        end_time: datetime | None = None,
    ) -> tuple[str, datetime]:
        """Return a token and the instant from which on it is refused.

        Args:
            person_id: Who.
            organization_id: Where.
            role: The role there.
            platform_roles: Roles as part of the operator's own people.
            session_id: The session; None makes an id for one that is stored nowhere.
            membership_version: Of the membership that the role was read from.
            end_time: When the session ends for good: its tokens do not outlive it.
        """
        now = self._clock.now()
        expire_time = now + timedelta(seconds=SESSION_SECONDS)
        if end_time is not None:
            expire_time = min(expire_time, end_time)
        claims = {
            "iss": ISSUER,
            "aud": SESSION_AUDIENCE,
            "sub": str(person_id),
            "org": str(organization_id),
            "sid": str(session_id or self._ids.uuid7()),
            "role": role,
            "prole": list(platform_roles),
            "mv": membership_version,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": str(self._ids.uuid7()),
        }
        return jwt.encode(claims, self._key, SESSION_ALGORITHM, headers=self._headers), expire_time

    @property
    def key_id(self) -> str:
        """Return the id that tokens name the key by."""
        return self._headers["kid"]

    @property
    def public_key(self) -> Ed25519PublicKey:
        """Return the key that its tokens are verified with."""
        return self._key.public_key()

    def jwks_json(self) -> str:
        """Return the public key as a JSON Web Key Set."""
        return write_jwks([self._key.public_key()])


def session_key_id(public_key: Ed25519PublicKey) -> str:
    """Return the id that tokens name a key by."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:_KEY_ID_LENGTH]


def write_jwks(keys: Sequence[Ed25519PublicKey]) -> str:
    """Return public keys as a JSON Web Key Set."""
    return json.dumps(
        {
            "keys": [
                {
                    **jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True),
                    "kid": session_key_id(key),
                    "use": "sig",
                    "alg": SESSION_ALGORITHM,
                }
                for key in keys
            ]
        }
    )


def read_jwks(jwks_json: str) -> dict[str, Ed25519PublicKey]:
    """Return the Ed25519 keys of a key set by their ids."""
    keys = {}
    for entry in json.loads(jwks_json)["keys"]:
        key = jwt.algorithms.OKPAlgorithm.from_jwk(entry)
        if isinstance(key, Ed25519PublicKey):
            keys[str(entry["kid"])] = key
    return keys


def read_type(token: str) -> str:
    """Return the type that a token claims to have, not verified.

    Raises:
        jwt.InvalidTokenError: It is no JWT, or names no type.
    """
    token_type = _read_header(token.partition(".")[0]).get("typ")
    if not isinstance(token_type, str):
        raise jwt.InvalidTokenError("a token without a type")
    return token_type


def read_session_key_id(token: str) -> str:
    """Return the id of the key that a session token claims to be signed with, not verified.

    Raises:
        jwt.InvalidTokenError: It has not the form of a session token.
    """
    if _FORM.fullmatch(token) is None:
        raise jwt.InvalidTokenError("not the form of a session token")
    return _read_key_id(token.partition(".")[0])


def read_session_token(token: str, keys: Mapping[str, Ed25519PublicKey], now: datetime) -> SessionClaims:
    """Verify a session token and return what it says.

    Args:
        token: As it came, without `Bearer`.
        keys: The public keys of `auth` by their ids.
        now: The current instant.

    Raises:
        KeyError: It is signed with a key that is not among `keys`.
        jwt.InvalidTokenError: It is not valid.
    """
    key = keys[read_session_key_id(token)]
    return _read_claims(_JWS.decode(token, key, algorithms=[SESSION_ALGORITHM]), now.timestamp())


# Tokens of one key have the same header, byte for byte.
@lru_cache(maxsize=_HEADERS_REMEMBERED_MAX)
def _read_key_id(segment: str) -> str:
    key_id = _read_header(segment).get("kid")
    header = {"alg": SESSION_ALGORITHM, "kid": key_id, "typ": SESSION_TOKEN_TYPE}
    written = json.dumps(header, separators=(",", ":")).encode()
    if segment != base64.urlsafe_b64encode(written).rstrip(b"=").decode():
        raise jwt.InvalidTokenError("not the header of a session token")
    return str(key_id)


@lru_cache(maxsize=_HEADERS_REMEMBERED_MAX)
def _read_header(segment: str) -> Mapping[str, Any]:
    # The payload and the signature are none; what is wrong about them is found out when they are read.
    header: dict[str, Any] = jwt.get_unverified_header(f"{segment}..")
    return header


def _read_claims(payload: bytes, now: float) -> SessionClaims:
    try:
        claims = json.loads(payload)
    except RecursionError as error:
        raise jwt.InvalidTokenError("claims are flat") from error
    if not isinstance(claims, dict):
        raise jwt.InvalidTokenError("claims are an object")
    if claims.get("iss") != ISSUER or claims.get("aud") != SESSION_AUDIENCE:
        raise jwt.InvalidTokenError("from elsewhere, or for somebody else")
    beginning, end = _read_times(claims.get("iat"), claims.get("exp"), now)
    role, platform_roles, version = claims.get("role"), claims.get("prole"), claims.get("mv")
    if not isinstance(role, str) or type(version) is not int or not isinstance(claims.get("jti"), str):
        raise jwt.InvalidTokenError("role, mv or jti is not what it should be")
    if not isinstance(platform_roles, list) or not all(isinstance(each, str) for each in platform_roles):
        raise jwt.InvalidTokenError("prole is a list of names")
    return SessionClaims(
        person_id=_read_id(claims.get("sub")),
        organization_id=_read_id(claims.get("org")),
        session_id=_read_id(claims.get("sid")),
        role=role,
        platform_roles=tuple(platform_roles[:PLATFORM_ROLES_MAX]),
        membership_version=version,
        issue_time_s=beginning,
        expire_time_s=end,
    )


def _read_times(beginning: object, end: object, now: float) -> tuple[int, int]:
    # A bool is an int to Python, and a JSON number may be a float.
    if type(beginning) is not int or type(end) is not int:
        raise jwt.InvalidTokenError("iat and exp are whole seconds")
    if end <= now:
        raise jwt.ExpiredSignatureError("it has ended")
    if beginning > now + CLOCK_SKEW_SECONDS:
        raise jwt.ImmatureSignatureError("it has not begun")
    if end - beginning > SESSION_SECONDS:
        raise jwt.InvalidTokenError("it lives too long")
    return beginning, end


def _read_id(text: object) -> UUID:
    if not isinstance(text, str):
        raise jwt.InvalidTokenError("an id is a string")
    found = UUID(text)
    if str(found) != text:
        raise jwt.InvalidTokenError("an id is written in one way")
    return found
