"""A process proves itself by its own key, to one service, for a short while; nothing else is believed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.clock import ManualClock
from mesh.config import named_keys
from mesh.ids import SequenceIds
from mesh.rpc import access
from mesh.rpc.access import CredentialsInvalid, PrincipalKind, Verifier
from mesh.rpc.client_address import client_address, vouched_address
from mesh.rpc.process_tokens import (
    CLOCK_SKEW_SECONDS,
    PROCESS_ISSUER,
    PROCESS_TOKEN_RENEW_SECONDS,
    PROCESS_TOKEN_SECONDS,
    PROCESS_TOKEN_TYPE,
    ProcessKeys,
    ProcessTokens,
    key_id_of,
    public_key_of,
    read_process_token,
)
from mesh.rpc.tokens import SessionSigner
from tests.support.processes import PROCESS_KEYS, PUBLIC_KEYS, process_tokens, seed_of

SESSION_SEED = b"s" * 32
ORGANIZATION = UUID(int=1)


@pytest.fixture
def clock():
    return ManualClock(datetime.now(UTC))


def verifier_of(clock, keys=PROCESS_KEYS, audience="metering"):
    async def jwks():
        return SessionSigner(seed=SESSION_SEED, clock=clock, ids=SequenceIds()).jwks_json()

    async def nobody(_token):
        return None

    return Verifier(process_keys=keys, audience=audience, fetch_jwks=jwks, resolve_service_account=nobody, clock=clock)


def forge(seed=None, *, process="billing", algorithm="EdDSA", key=None, headers=(), **changes):
    """A token like one of ours, but for what is changed: a claim of None is left out, a function is given the time."""
    now = int(time.time())
    claims = {"iss": PROCESS_ISSUER, "sub": process, "aud": "metering", "iat": now, "exp": now + PROCESS_TOKEN_SECONDS}
    changes = {name: change(now) if callable(change) else change for name, change in changes.items()}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    seed = seed or seed_of(process)
    head = {"kid": key_id_of(public_key_of(seed)), "typ": PROCESS_TOKEN_TYPE, **dict(headers)}
    key = Ed25519PrivateKey.from_private_bytes(seed) if key is None else key
    return "Bearer " + jwt.encode(claims, key, algorithm, headers=head)


async def test_a_process_token_names_its_process_and_is_made_anew_in_time(clock):
    tokens = ProcessTokens(seed=seed_of("billing"), process="billing", clock=clock)
    first = tokens.bearer("metering")
    principal = await verifier_of(clock).principal(first)
    assert (principal.kind, principal.subject) == (PrincipalKind.PROCESS, "billing")
    assert tokens.bearer("metering") == first
    assert tokens.bearer("auth") != first
    clock.advance(PROCESS_TOKEN_SECONDS - PROCESS_TOKEN_RENEW_SECONDS)
    assert tokens.bearer("metering") != first


async def test_a_forged_token_like_ours_is_believed_as_it_stands(clock):
    """What the refusals below start from."""
    assert (await verifier_of(clock).principal(forge())).subject == "billing"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "auth"},
        {"aud": None},
        {"aud": ["auth", "metering"]},
        {"aud": ""},
        {"iss": "tollway"},
        {"iss": None},
        {"sub": "edge_proxy"},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"exp": lambda now: now - CLOCK_SKEW_SECONDS - 1},
        {"iat": lambda now: now + CLOCK_SKEW_SECONDS + 3_600},
        {"exp": lambda now: now + 365 * 86_400},
        {"nbf": lambda now: now + 3_600},
    ],
)
async def test_a_claim_that_is_not_as_it_should_be_is_refused(clock, changes):
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(forge(**changes))


@pytest.mark.parametrize("headers", [{"kid": "0" * 16}, {"kid": ""}, {"typ": "JWT"}, {"typ": None}])
async def test_a_header_that_is_not_as_it_should_be_is_refused(clock, headers):
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(forge(headers=headers))


@pytest.mark.parametrize(
    "forgery",
    [
        lambda: forge(algorithm="HS256", key=public_key_of(seed_of("billing")).hex()),
        lambda: forge(algorithm="HS512", key=public_key_of(seed_of("billing")).hex() * 2),
        lambda: forge(algorithm="none", key=""),
        lambda: forge(b"x" * 32),
        lambda: forge(seed_of("edge_proxy"), process="billing"),
        lambda: forge(b"x" * 32, headers={"kid": key_id_of(public_key_of(seed_of("billing")))}),
        lambda: forge(SESSION_SEED, headers={"kid": key_id_of(public_key_of(SESSION_SEED))}),
        lambda: forge()[:-4] + "AAAA",
        lambda: forge().rpartition(".")[0] + ".",
    ],
)
async def test_another_algorithm_or_key_is_refused(clock, forgery):
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(forgery())


async def test_a_token_is_of_no_use_at_another_service(clock):
    token = process_tokens("edge_proxy").bearer("metering")
    assert (await verifier_of(clock).principal(token)).subject == "edge_proxy"
    for service in ("auth", "billing", "ratelimit", "notification", "graphql_gateway"):
        with pytest.raises(CredentialsInvalid):
            await verifier_of(clock, audience=service).principal(token)


async def test_a_process_cannot_make_sessions_nor_auth_processes(clock):
    """Each kind of token is believed from its own keys only."""
    as_person = SessionSigner(seed=seed_of("auth"), clock=clock, ids=SequenceIds())
    token, _ = as_person.issue(person_id=ORGANIZATION, organization_id=ORGANIZATION, role="owner")
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(f"Bearer {token}")
    as_process = forge(SESSION_SEED, headers={"typ": PROCESS_TOKEN_TYPE})
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(as_process)


async def test_a_token_that_was_believed_is_looked_at_again_after_its_end(clock, monkeypatch):
    checked = []

    def check(token, keys, audience):
        checked.append(token)
        if clock.now().timestamp() >= end:
            raise jwt.ExpiredSignatureError
        return read_process_token(token, keys, audience)

    monkeypatch.setattr(access, "read_process_token", check)
    verifier, token = verifier_of(clock), forge()
    end = clock.now().timestamp() + PROCESS_TOKEN_SECONDS
    for _ in range(3):
        assert (await verifier.principal(token)).subject == "billing"
    assert len(checked) == 1
    clock.advance(PROCESS_TOKEN_SECONDS + CLOCK_SKEW_SECONDS + 1)
    with pytest.raises(CredentialsInvalid):
        await verifier.principal(token)


async def test_a_clock_that_was_set_back_makes_a_new_token(clock):
    tokens = ProcessTokens(seed=seed_of("billing"), process="billing", clock=clock)
    clock.advance(3_600)
    ahead = tokens.bearer("metering")
    clock.advance(-3_600)
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock).principal(ahead)
    assert (await verifier_of(clock).principal(tokens.bearer("metering"))).subject == "billing"


async def test_a_key_is_rotated_without_a_refused_call(clock):
    old, new = seed_of("billing"), b"n" * 32
    both = ProcessKeys([*named_keys(PUBLIC_KEYS), ("billing", public_key_of(new))])
    only_new = ProcessKeys([("billing", public_key_of(new))])
    for seed in (old, new):
        assert (await verifier_of(clock, both).principal(forge(seed))).subject == "billing"
    with pytest.raises(CredentialsInvalid):
        await verifier_of(clock, only_new).principal(forge(old))


def test_one_key_stands_for_one_process():
    key = public_key_of(b"k" * 32)
    with pytest.raises(ValueError, match="have the same key"):
        ProcessKeys([("billing", key), ("edge_proxy", key)])
    ProcessKeys([("billing", key), ("billing", key)])


def test_an_address_is_believed_where_the_gateway_vouches_for_it_to_this_service():
    peer = "ipv4:198.51.100.1:50000"
    vouched = dict(vouched_address(process_tokens("graphql_gateway"), "192.0.2.7", "auth"))
    assert client_address(vouched, peer, PROCESS_KEYS, "auth") == "192.0.2.7"
    for service, metadata in (
        ("billing", vouched),
        ("auth", {**vouched, "x-tollway-vouched-by": "Bearer x.y.z"}),
        ("auth", {"x-tollway-client-address": "192.0.2.7"}),
        ("auth", dict(vouched_address(process_tokens("edge_proxy"), "192.0.2.7", "auth"))),
        (
            "auth",
            dict(
                vouched_address(
                    ProcessTokens(seed=b"x" * 32, process="cli", clock=ManualClock(datetime.now(UTC))),
                    "192.0.2.7",
                    "auth",
                )
            ),
        ),
    ):
        assert client_address(metadata, peer, PROCESS_KEYS, service) == "ipv4:198.51.100.1"
