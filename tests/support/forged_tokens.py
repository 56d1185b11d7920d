"""Tokens that are not what they should be, each made from a good one: for the verifier alone and for a real server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.rpc.process_tokens import CLOCK_SKEW_SECONDS, PROCESS_ISSUER, PROCESS_TOKEN_TYPE
from mesh.rpc.tokens import ISSUER, SESSION_AUDIENCE, SESSION_SECONDS, SESSION_TOKEN_TYPE, session_key_id
from tests.support.machine_tokens import machine_token
from tests.support.processes import process_tokens

SEED = b"s" * 32
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(SEED)
PUBLIC_KEY = SIGNING_KEY.public_key().public_bytes_raw()
KEY_ID = session_key_id(SIGNING_KEY.public_key())
PERSON, ORGANIZATION, SESSION = UUID(int=9), UUID(int=1), UUID(int=5)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, but for what is changed; a claim of None is left out."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": SESSION_AUDIENCE,
        "sub": str(PERSON),
        "org": str(ORGANIZATION),
        "sid": str(SESSION),
        "role": "owner",
        "prole": [],
        "mv": 2**53 - 1,
        "jti": "an id",
        "iat": now,
        "exp": now + SESSION_SECONDS,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def forge(*, algorithm: str = "EdDSA", key: Any = SIGNING_KEY, headers: Mapping[str, Any] = {}, **changes: Any) -> str:
    """A token like auth's, but for what is changed."""
    fields = {"kid": KEY_ID, "typ": SESSION_TOKEN_TYPE, **headers}
    return jwt.encode(claims(**changes), key, algorithm, headers=fields)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def header(**changes: Any) -> str:
    """The header of a good token as JSON."""
    fields = {"alg": "EdDSA", "kid": KEY_ID, "typ": SESSION_TOKEN_TYPE, **changes}
    return json.dumps(fields, separators=(",", ":"))


def raw(header_json: str, claims_json: str) -> str:
    """A token with exactly this header and these claims, signed with auth's key."""
    signing_input = f"{encoded(header_json.encode())}.{encoded(claims_json.encode())}"
    return f"{signing_input}.{encoded(SIGNING_KEY.sign(signing_input.encode()))}"


def good() -> str:
    """A token that is believed: what all others start from."""
    return raw(header(), json.dumps(claims()))


def _now() -> int:
    return int(time.time())


Make = Callable[[], str]

OTHER_KEYS: dict[str, Make] = {
    "alg none": lambda: forge(algorithm="none", key=""),
    "alg none, no signature": lambda: forge(algorithm="none", key="").rstrip("."),
    "HS256 under the public key": lambda: forge(algorithm="HS256", key=PUBLIC_KEY),
    "HS256 under the public key in hex": lambda: forge(algorithm="HS256", key=PUBLIC_KEY.hex()),
    "HS384 under the public key": lambda: forge(algorithm="HS384", key=PUBLIC_KEY.hex()),
    "HS512 under the public key": lambda: forge(algorithm="HS512", key=PUBLIC_KEY.hex()),
    "another key": lambda: forge(key=Ed25519PrivateKey.from_private_bytes(b"x" * 32)),
    "another key and its id": lambda: forge(
        key=Ed25519PrivateKey.from_private_bytes(b"x" * 32),
        headers={"kid": session_key_id(Ed25519PrivateKey.from_private_bytes(b"x" * 32).public_key())},
    ),
    "another kid": lambda: forge(headers={"kid": "another"}),
    "a kid that is a path": lambda: forge(headers={"kid": "../../dev/null"}),
    "no kid": lambda: raw('{"alg":"EdDSA","typ":"tw-session+jwt"}', json.dumps(claims())),
    "a changed signature": lambda: forge()[:-4] + "AAAA",
    "no signature": lambda: forge().rpartition(".")[0] + ".",
    "changed claims": lambda: ".".join(
        (forge().split(".")[0], forge(role="admin").split(".")[1], forge().split(".")[2])
    ),
}

HEADERS: dict[str, Make] = {
    "jwk": lambda: forge(headers={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": encoded(PUBLIC_KEY)}}),
    "jku": lambda: forge(headers={"jku": "https://evil.example/keys"}),
    "x5u": lambda: forge(headers={"x5u": "https://evil.example/cert"}),
    "x5c": lambda: forge(headers={"x5c": ["AAAA"]}),
    "crit": lambda: forge(headers={"crit": ["exp"], "exp": 1}),
    "crit that is unknown": lambda: forge(headers={"crit": ["x"], "x": 1}),
    "crit that is empty": lambda: forge(headers={"crit": []}),
    "cty": lambda: forge(headers={"cty": "JWT"}),
    "zip": lambda: forge(headers={"zip": "DEF"}),
    "typ JWT": lambda: forge(headers={"typ": "JWT"}),
    "typ at+jwt": lambda: forge(headers={"typ": "at+jwt"}),
    "typ in upper case": lambda: forge(headers={"typ": SESSION_TOKEN_TYPE.upper()}),
    "no typ": lambda: raw(f'{{"alg":"EdDSA","kid":"{KEY_ID}"}}', json.dumps(claims())),
    "alg twice": lambda: raw(header().replace("{", '{"alg":"none",', 1), json.dumps(claims())),
    "kid twice": lambda: raw(header().replace("{", '{"kid":"another",', 1), json.dumps(claims())),
    "spaces": lambda: raw(header().replace(":", " :"), json.dumps(claims())),
    "a list": lambda: raw("[]", json.dumps(claims())),
    "no JSON": lambda: raw("x", json.dumps(claims())),
    "empty": lambda: raw("{}", json.dumps(claims())),
    "nested": lambda: raw("[" * 700, json.dumps(claims())),
}

CLAIMS: dict[str, Make] = {
    "iss of processes": lambda: forge(iss=PROCESS_ISSUER),
    "iss of a stranger": lambda: forge(iss="https://evil.example"),
    "no iss": lambda: forge(iss=None),
    "aud elsewhere": lambda: forge(aud="elsewhere"),
    "aud that is a list": lambda: forge(aud=[SESSION_AUDIENCE]),
    "no aud": lambda: forge(aud=None),
    "exp that is over": lambda: forge(iat=_now() - 60, exp=_now() - 1),
    "exp beyond the life": lambda: forge(exp=_now() + SESSION_SECONDS + 5),
    "exp beyond the life, begun later": lambda: forge(
        iat=_now() + CLOCK_SKEW_SECONDS + 5, exp=_now() + CLOCK_SKEW_SECONDS + 5 + SESSION_SECONDS
    ),
    "exp that is text": lambda: forge(exp=str(_now() + 60)),
    "exp with a fraction": lambda: forge(exp=_now() + 60.5),
    "exp that is true": lambda: forge(exp=True),
    "exp that is a list": lambda: forge(exp=[_now() + 60]),
    "exp that is huge": lambda: forge(exp=10**400),
    "exp that is infinite": lambda: raw(header(), json.dumps(claims(exp=float("inf")))),
    "exp that is no number": lambda: raw(header(), json.dumps(claims(exp=float("nan")))),
    "no exp": lambda: forge(exp=None),
    "iat that is text": lambda: forge(iat=str(_now())),
    "iat in the future": lambda: forge(iat=_now() + 60, exp=_now() + 120),
    "iat and exp far apart": lambda: forge(iat=-(10**20), exp=10**20),
    "no iat": lambda: forge(iat=None),
    "sub that is no id": lambda: forge(sub="someone"),
    "no sub": lambda: forge(sub=None),
    "org that is no id": lambda: forge(org="acme"),
    "org that is a list": lambda: forge(org=[str(ORGANIZATION)]),
    "no org": lambda: forge(org=None),
    "sid that is no id": lambda: forge(sid="5"),
    "sid in braces": lambda: forge(sid=f"{{{SESSION}}}"),
    "sid that is a number": lambda: forge(sid=5),
    "no sid": lambda: forge(sid=None),
    "role that is none": lambda: forge(role="emperor"),
    "role that is unspecified": lambda: forge(role="unspecified"),
    "role that is a list": lambda: forge(role=["owner"]),
    "no role": lambda: forge(role=None),
    "prole that is none": lambda: forge(prole=["emperor"]),
    "prole that is text": lambda: forge(prole="admin"),
    "no prole": lambda: forge(prole=None),
    "mv that is text": lambda: forge(mv="3"),
    "mv with a fraction": lambda: forge(mv=3.0),
    "mv that is true": lambda: forge(mv=True),
    "no mv": lambda: forge(mv=None),
    "no jti": lambda: forge(jti=None),
    "claims that are a list": lambda: raw(header(), "[]"),
    "claims that are no JSON": lambda: raw(header(), "x"),
    "no claims": lambda: raw(header(), ""),
    "nested claims": lambda: raw(header(), "[" * 1_000),
}

FORMS: dict[str, Make] = {
    "a segment more": lambda: f"{good()}.",
    "two tokens": lambda: f"{good()}.{good()}",
    "a segment before": lambda: f".{good()}",
    "padding": lambda: f"{good()}==",
    "a wrong padding": lambda: f"{good()}=",
    "an empty segment": lambda: good().replace(".", "..", 1),
    "a segment less": lambda: good().rpartition(".")[0],
    "the same signature in other letters": lambda: _respelled(good()),
    "two tokens with a space": lambda: f"{good()} {good()}",
    "two tokens with a comma": lambda: f"{good()},{good()}",
    "oversized": lambda: raw(header(), json.dumps(claims(x="x" * 2_000))),
    "garbage": lambda: "a.b.c",
    "dots": lambda: "..",
}

OTHER_KINDS: dict[str, Make] = {
    "a process token for another service": lambda: (
        process_tokens("billing").bearer("elsewhere").removeprefix("Bearer ")
    ),
    "a process token as a session": lambda: jwt.encode(
        {**claims(), "iss": PROCESS_ISSUER, "aud": "auth", "sub": "billing"},
        SIGNING_KEY,
        "EdDSA",
        headers={"kid": KEY_ID, "typ": PROCESS_TOKEN_TYPE},
    ),
    "a session token as a process": lambda: forge(headers={"typ": PROCESS_TOKEN_TYPE}),
    "a service account's token as a JWT": lambda: f"{machine_token('x')}.{encoded(b'{}')}.{'A' * 86}",
    "an unknown service account": lambda: machine_token("nobody"),
    "a service account's token with a wrong check sum": lambda: machine_token("nobody")[:-1] + "x",
    "a refresh token": lambda: "tw_rt_" + "0" * 64,
    "an API key": lambda: "sk_live_" + "0" * 64,
    "a one-time token": lambda: "A" * 43,
}


def _respelled(token: str) -> str:
    """The same bytes with another last letter: its lowest four bits mean nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) ^ 1]


FORGERIES: dict[str, Make] = {
    f"{kind}: {name}": make
    for kind, forgeries in {
        "key": OTHER_KEYS,
        "header": HEADERS,
        "claim": CLAIMS,
        "form": FORMS,
        "kind": OTHER_KINDS,
    }.items()
    for name, make in forgeries.items()
}
