"""A session token is believed from auth's key alone, in its own form, until its end."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.clock import ManualClock
from mesh.ids import SequenceIds
from mesh.rpc.access import CredentialsInvalid, Verifier
from mesh.rpc.tokens import ISSUER, SESSION_AUDIENCE, SESSION_SECONDS, SESSION_TOKEN_TYPE, SessionSigner, read_jwks
from tests.support.processes import PROCESS_KEYS

CLOCK = ManualClock(datetime.now(UTC))
SIGNER = SessionSigner(seed=b"s" * 32, clock=CLOCK, ids=SequenceIds())
NOW = int(CLOCK.now().timestamp())
(KEY_ID,) = read_jwks(SIGNER.jwks_json())
PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(b"s" * 32).public_key().public_bytes_raw()


@pytest.fixture
def verifier():
    async def jwks():
        return SIGNER.jwks_json()

    async def nobody(_token):
        return None

    return Verifier(
        process_keys=PROCESS_KEYS, audience="auth", fetch_jwks=jwks, resolve_service_account=nobody, clock=CLOCK
    )


def forge(seed=b"s" * 32, *, algorithm="EdDSA", key=None, headers=(), **changes):
    """A token like auth's, but for what is changed; a claim of None is left out."""
    now = int(CLOCK.now().timestamp())
    claims = {
        "iss": ISSUER,
        "aud": SESSION_AUDIENCE,
        "sub": str(UUID(int=9)),
        "org": str(UUID(int=1)),
        "sid": str(UUID(int=5)),
        "role": "owner",
        "prole": [],
        "mv": 3,
        "jti": "an id",
        "iat": now,
        "exp": now + SESSION_SECONDS,
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    key = Ed25519PrivateKey.from_private_bytes(seed) if key is None else key
    return "Bearer " + jwt.encode(
        claims, key, algorithm, headers={"kid": KEY_ID, "typ": SESSION_TOKEN_TYPE, **dict(headers)}
    )


async def test_a_forged_token_like_auths_is_believed_as_it_stands(verifier):
    """What the refusals below start from."""
    assert (await verifier.principal(forge())).subject == str(UUID(int=9))


@pytest.mark.parametrize(
    "forgery",
    [
        forge(algorithm="HS256", key=PUBLIC_KEY.hex()),
        forge(algorithm="HS384", key=PUBLIC_KEY.hex()),
        forge(algorithm="HS512", key=PUBLIC_KEY.hex()),
        forge(algorithm="none", key=""),
        forge(b"x" * 32),
        forge()[:-4] + "AAAA",
        forge().rpartition(".")[0] + ".",
        forge(headers={"kid": "another"}),
    ],
)
async def test_another_algorithm_or_key_is_refused(verifier, forgery):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(forgery)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "tollway-process"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": NOW - 1},
        {"exp": None},
        {"exp": NOW + SESSION_SECONDS + 1},
        {"exp": str(NOW + SESSION_SECONDS)},
        {"exp": NOW + 60.5},
        {"exp": True},
        {"exp": [NOW + 60]},
        {"exp": 10**400},
        {"iat": None},
        {"iat": str(NOW)},
        {"iat": NOW + 60, "exp": NOW + 120},
        {"iat": -(10**20), "exp": 10**20},
        {"iat": NOW + 3_600},
        {"sub": None},
        {"org": None},
        {"org": "acme"},
        {"role": None},
        {"role": "emperor"},
        {"prole": ["emperor"]},
        {"role": ["owner"]},
        {"prole": None},
        {"prole": "admin"},
        {"aud": "elsewhere"},
        {"aud": ["tollway"]},
        {"aud": None},
        {"sid": None},
        {"sid": "5"},
        {"sid": f"{{{UUID(int=5)}}}"},
        {"sid": 5},
        {"sub": "someone"},
        {"org": [str(UUID(int=1))]},
        {"mv": None},
        {"mv": "3"},
        {"mv": 3.0},
        {"mv": True},
        {"jti": None},
    ],
)
async def test_a_claim_that_is_not_as_it_should_be_is_refused(verifier, changes):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(forge(**changes))


@pytest.mark.parametrize(
    "headers",
    [
        {"jwk": {"kty": "OKP"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "at+jwt"},
        {"typ": "TW-SESSION+JWT"},
    ],
)
async def test_a_header_with_more_in_it_is_refused(verifier, headers):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(forge(headers=headers))


def raw(header, claims):
    """A token with exactly this header and these claims as JSON, signed with auth's key."""
    signing_input = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (header, claims))
    signature = Ed25519PrivateKey.from_private_bytes(b"s" * 32).sign(signing_input.encode())
    return f"Bearer {signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


GOOD = forge().removeprefix("Bearer ")
HEADER, CLAIMS = (base64.urlsafe_b64decode(part + "==").decode() for part in GOOD.split(".")[:2])


async def test_a_token_made_by_hand_is_believed_as_it_stands(verifier):
    """What the refusals below start from."""
    assert raw(HEADER, CLAIMS) == f"Bearer {GOOD}"
    assert (await verifier.principal(raw(HEADER, CLAIMS))).session_id == UUID(int=5)


@pytest.mark.parametrize(
    "token",
    [
        raw(HEADER.replace("{", '{"alg":"none",', 1), CLAIMS),
        raw(HEADER.replace("{", '{"kid":"another",', 1), CLAIMS),
        raw(HEADER.replace(":", " :"), CLAIMS),
        raw("[]", CLAIMS),
        raw("x", CLAIMS),
        raw("{}", CLAIMS),
        raw(HEADER, "[]"),
        raw(HEADER, "x"),
        raw(HEADER, ""),
        raw(HEADER, "[" * 1_000),
        f"Bearer {GOOD}.",
        f"Bearer {GOOD}.{GOOD}",
        f"Bearer .{GOOD}",
        f"Bearer {GOOD}=",
        f"Bearer {GOOD}==",
        f"Bearer {GOOD.replace('.', '..', 1)}",
        f"Bearer {GOOD.rpartition('.')[0]}",
        f"Bearer {GOOD[:-1]}{chr(ord(GOOD[-1]) + 1)}",
        f"Bearer {GOOD} {GOOD}",
        f"Bearer {GOOD},{GOOD}",
        raw(HEADER, CLAIMS.replace("{", '{"x":"' + "x" * 2_000 + '",', 1)),
    ],
)
async def test_a_token_that_is_written_in_another_way_is_refused(verifier, token):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(token)
