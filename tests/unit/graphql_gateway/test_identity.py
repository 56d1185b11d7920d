"""Who is calling."""

from __future__ import annotations

import asyncio
import ipaddress
from uuid import UUID

import jwt
import pytest
from tollway.options.v1 import access_pb2

from graphql_gateway.callers import identity as identities
from graphql_gateway.callers.addresses import HOPS_MAX, client_address
from graphql_gateway.callers.identity import ANONYMOUS, REFUSED, UNCHECKED, Identity, IdentityKind, identify
from graphql_gateway.failure import Failure
from mesh.rpc.access import CredentialsInvalid, Principal, PrincipalKind, VerifierUnavailable

ORGANIZATION = UUID(int=7)


def bearer(**claims: str) -> str:
    return "Bearer " + jwt.encode(claims, "k" * 32, "HS256")


class Reader:
    def __init__(self, answer: Principal | Exception | None) -> None:
        self.answer = answer

    async def principal(self, authorization: str | None) -> Principal:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, Principal)
        return self.answer


async def test_people_and_service_accounts_are_known() -> None:
    for kind, expected in (
        (PrincipalKind.PERSON, IdentityKind.PERSON),
        (PrincipalKind.SERVICE_ACCOUNT, IdentityKind.SERVICE_ACCOUNT),
    ):
        principal = Principal(
            kind=kind, subject="x", organization_id=ORGANIZATION, role=access_pb2.ROLE_ADMIN, token="t"
        )
        found = await identify(Reader(principal), "Bearer t")
        assert (found.kind, found.subject, found.role) == (expected, "x", access_pb2.ROLE_ADMIN)
        assert found.require_organization() == ORGANIZATION


async def test_nobody_is_asked_about_a_request_without_credentials() -> None:
    assert await identify(Reader(AssertionError()), "") is ANONYMOUS


async def test_a_process_is_nobody_at_the_public_gateway() -> None:
    principal = Principal(kind=PrincipalKind.PROCESS, subject="billing")
    assert await identify(Reader(principal), "Bearer t") is REFUSED


async def test_wrong_credentials_and_credentials_that_cannot_be_checked_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "IDENTIFY_TIMEOUT_SECONDS", 0.01)
    session = bearer(iss="tollway")
    assert await identify(Reader(CredentialsInvalid()), session) is REFUSED
    assert await identify(Reader(VerifierUnavailable()), session) is UNCHECKED
    assert await identify(Reader(None), session) is UNCHECKED
    assert await identify(Reader(VerifierUnavailable()), "Bearer tw_sa_1") is UNCHECKED
    assert await identify(Reader(VerifierUnavailable()), "bearer tw_sa_1") is UNCHECKED


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer t",
        "Bearer ",
        "Basic dTpw",
        "Bearer a.b.c",
        bearer(iss="tollway-process", sub="billing"),
        bearer(sub="x"),
    ],
)
async def test_what_nobody_can_check_and_is_no_persons_token_is_refused(authorization: str) -> None:
    assert await identify(Reader(VerifierUnavailable()), authorization) is REFUSED


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (ANONYMOUS, "CREDENTIALS_MISSING"),
        (REFUSED, "CREDENTIALS_INVALID"),
        (UNCHECKED, "SERVICE_UNAVAILABLE"),
        (Identity(kind=IdentityKind.PERSON, subject="x"), "ORGANIZATION_NEEDED"),
    ],
)
def test_who_is_not_known_gets_no_default_organization(identity: Identity, reason: str) -> None:
    with pytest.raises(Failure) as caught:
        identity.require_organization()
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", [], "192.0.2.9"),
        ("192.0.2.9", ["203.0.113.1"], "192.0.2.9"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.7, 203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.7", "203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("unix", ["203.0.113.1"], "unix"),
        ("::ffff:10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1:50123"], "203.0.113.1"),
        ("10.0.0.1", ["[2001:db8::1]:50123"], "2001:db8::1"),
        ("10.0.0.1", ["203.0.113.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1" + ", 10.0.0.2" * HOPS_MAX], "10.0.0.2"),
    ],
)
def test_only_our_own_proxies_are_believed(peer: str, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, [ipaddress.ip_network("10.0.0.0/8")]) == address
