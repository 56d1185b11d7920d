"""A session token is believed from auth's key alone, in its own form, until its end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.clock import ManualClock
from mesh.ids import SequenceIds
from mesh.rpc.access import CredentialsInvalid, Verifier
from mesh.rpc.tokens import ISSUER, SESSION_SECONDS, SessionSigner, read_jwks
from tests.support.processes import PROCESS_KEYS

CLOCK = ManualClock(datetime.now(UTC))
SIGNER = SessionSigner(seed=b"s" * 32, clock=CLOCK, ids=SequenceIds())
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
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": str(UUID(int=9)),
        "org": str(UUID(int=1)),
        "role": "owner",
        "iat": now,
        "exp": now + SESSION_SECONDS,
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    key = Ed25519PrivateKey.from_private_bytes(seed) if key is None else key
    return "Bearer " + jwt.encode(claims, key, algorithm, headers={"kid": KEY_ID, **dict(headers)})


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
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 3_600},
        {"sub": None},
        {"org": None},
        {"org": "acme"},
        {"role": None},
        {"role": "emperor"},
        {"prole": ["emperor"]},
        {"aud": "elsewhere"},
    ],
)
async def test_a_claim_that_is_not_as_it_should_be_is_refused(verifier, changes):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(forge(**changes))
