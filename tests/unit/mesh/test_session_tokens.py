"""A session token is believed from auth's key alone, in its own form, until its end."""

from __future__ import annotations

import pytest

from mesh.clock import SystemClock
from mesh.ids import SequenceIds
from mesh.rpc.access import CredentialsInvalid, Verifier
from mesh.rpc.tokens import SessionSigner
from tests.support import forged_tokens
from tests.support.processes import PROCESS_KEYS

SIGNER = SessionSigner(seed=forged_tokens.SEED, clock=SystemClock(), ids=SequenceIds())


@pytest.fixture
def verifier():
    async def jwks():
        return SIGNER.jwks_json()

    async def nobody(_token):
        return None

    return Verifier(
        process_keys=PROCESS_KEYS, audience="auth", fetch_jwks=jwks, resolve_service_account=nobody, clock=SystemClock()
    )


async def refuses(verifier, token):
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(f"Bearer {token}")


@pytest.mark.parametrize("make", [forged_tokens.good, forged_tokens.forge])
async def test_a_forged_token_like_auths_is_believed_as_it_stands(verifier, make):
    """What the refusals below start from."""
    principal = await verifier.principal(f"Bearer {make()}")
    assert principal.subject == str(forged_tokens.PERSON)
    assert principal.session_id == forged_tokens.SESSION


@pytest.mark.parametrize("name", forged_tokens.OTHER_KEYS)
async def test_another_algorithm_or_key_is_refused(verifier, name):
    await refuses(verifier, forged_tokens.OTHER_KEYS[name]())


@pytest.mark.parametrize("name", forged_tokens.CLAIMS)
async def test_a_claim_that_is_not_as_it_should_be_is_refused(verifier, name):
    await refuses(verifier, forged_tokens.CLAIMS[name]())


@pytest.mark.parametrize("name", forged_tokens.HEADERS)
async def test_a_header_with_more_in_it_is_refused(verifier, name):
    await refuses(verifier, forged_tokens.HEADERS[name]())


@pytest.mark.parametrize("name", forged_tokens.FORMS)
async def test_a_token_that_is_written_in_another_way_is_refused(verifier, name):
    await refuses(verifier, forged_tokens.FORMS[name]())


@pytest.mark.parametrize("name", forged_tokens.OTHER_KINDS)
async def test_another_kind_of_token_is_refused_where_a_session_is_expected(verifier, name):
    await refuses(verifier, forged_tokens.OTHER_KINDS[name]())
