"""People sign in, service accounts are resolved, other services append to the audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from contract import key_format
from mesh.ids import RandomIds
from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import ReceivedError, from_grpc
from mesh.rpc.tokens import read_jwks, read_session_token
from services.auth import passwords
from services.auth.throttle import FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
from tests.support.accounts import PASSWORD, PEPPER, SeededOrganization, seed_organization
from tests.support.machine_tokens import machine_token
from tests.support.processes import process_tokens


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def test_a_session_verifies_with_the_published_keys(auth: Any, acme: SeededOrganization) -> None:
    session = await auth.stub.CreateSession(pb.CreateSessionRequest(email=acme.email.upper(), password=PASSWORD))
    jwks = (await auth.stub.GetJwks(pb.GetJwksRequest())).jwks_json
    claims = read_session_token(session.access_token, read_jwks(jwks), datetime.now(UTC))
    assert (claims.person_id, claims.organization_id, claims.role) == (acme.owner_id, acme.organization_id, "owner")
    assert str(claims.session_id) == session.session_id
    assert "d" not in json.loads(jwks)["keys"][0]
    assert (session.role, UUID(session.person_id)) == (access_pb2.ROLE_OWNER, acme.owner_id)
    organization = await auth.stub.GetOrganization(
        pb.GetOrganizationRequest(organization_id=session.organization_id),
        metadata=[("authorization", f"Bearer {session.access_token}")],
    )
    assert (organization.name, dict(organization.metadata)) == ("acme", {"tier": "gold"})


async def test_a_wrong_address_and_a_wrong_password_answer_alike_after_the_same_work(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[str] = []
    verify = passwords._verify

    def note_and_verify(password_hash: str, password: str) -> bool:
        hashes.append(password_hash)
        return verify(password_hash, password)

    monkeypatch.setattr(passwords, "_verify", note_and_verify)
    answers = [
        await refusal(auth.stub.CreateSession(pb.CreateSessionRequest(email=email, password="wrong")))
        for email in (acme.email, "nobody@acme.example")
    ]
    assert answers[0] == answers[1]
    assert (answers[0].code, answers[0].reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_REFUSED")
    stored, dummy = hashes
    # Type, version and cost of an argon2 hash stand in front of its salt.
    assert stored.split("$")[:4] == dummy.split("$")[:4]


async def test_guessing_is_throttled_even_for_the_right_password(auth: Any, acme: SeededOrganization) -> None:
    wrong = pb.CreateSessionRequest(email=acme.email, password="wrong")
    for _ in range(FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX):
        await refusal(auth.stub.CreateSession(wrong))
    right = pb.CreateSessionRequest(email=acme.email, password=PASSWORD)
    refused = await refusal(auth.stub.CreateSession(right))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SIGN_IN_THROTTLED")
    assert refused.retry_after_seconds is not None
    assert refused.retry_after_seconds > 1
    made_up = [("x-tollway-client-address", "192.0.2.7"), ("x-tollway-vouched-by", "Bearer x.y.z")]
    assert (await refusal(auth.stub.CreateSession(right, metadata=made_up))).reason == "SIGN_IN_THROTTLED"
    tokens = process_tokens("graphql_gateway")
    elsewhere = vouched_address(tokens, "192.0.2.7", "auth")
    assert (await auth.stub.CreateSession(right, metadata=elsewhere)).access_token


async def test_signing_in_to_a_strangers_organization_is_not_found(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    for organization_id in (str(other.organization_id), str(RandomIds().uuid7())):
        request = pb.CreateSessionRequest(email=acme.email, password=PASSWORD, organization_id=organization_id)
        refused = await refusal(auth.stub.CreateSession(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")


async def seed_service_account(auth: Any, organization_id: UUID, *, expires_in: timedelta) -> str:
    token = machine_token(RandomIds().uuid7().hex)
    connection = await asyncpg.connect(auth.database.dsn("auth_system"))
    try:
        await connection.execute(
            "INSERT INTO service_accounts (organization_id, service_account_id, name, role, digest, pepper_version,"
            " hint, create_time, expire_time) VALUES ($1, $2, 'ci', 'admin', $3, 1, 'tw_sa_', now(), $4)",
            organization_id,
            RandomIds().uuid7(),
            key_format.digest(token, PEPPER),
            datetime.now(UTC) + expires_in,
        )
    finally:
        await connection.close()
    return token


async def test_a_service_account_acts_by_its_token_until_it_expires(auth: Any, acme: SeededOrganization) -> None:
    good = await seed_service_account(auth, acme.organization_id, expires_in=timedelta(hours=1))
    expired = await seed_service_account(auth, acme.organization_id, expires_in=timedelta(seconds=-1))
    request = pb.ListApiKeysRequest(organization_id=str(acme.organization_id))
    await auth.stub.ListApiKeys(request, metadata=[("authorization", f"Bearer {good}")])
    refused = await refusal(auth.stub.ListApiKeys(request, metadata=[("authorization", f"Bearer {expired}")]))
    assert refused.reason == "CREDENTIALS_INVALID"
    answer = await auth.stub.ResolveServiceAccount(
        pb.ResolveServiceAccountRequest(token=good), metadata=auth.process("billing")
    )
    assert (answer.valid, answer.role) == (True, access_pb2.ROLE_ADMIN)
    unknown = await auth.stub.ResolveServiceAccount(
        pb.ResolveServiceAccountRequest(token="tw_sa_ü"), metadata=auth.process("billing")
    )
    assert unknown == pb.ResolveServiceAccountResponse(valid=False)


async def test_an_audit_entry_that_is_sent_twice_stands_there_once(auth: Any, acme: SeededOrganization) -> None:
    entry = pb.AuditEntry(
        audit_entry_id=str(RandomIds().uuid7()),
        organization_id=str(acme.organization_id),
        actor="billing",
        action="subscription.create",
        resource="subscription/1",
    )
    entry.create_time.GetCurrentTime()
    entry.details.update({"plan_id": "pro"})
    request = pb.AppendAuditEntriesRequest(entries=[entry])
    counts = [
        (await auth.stub.AppendAuditEntries(request, metadata=auth.process("billing"))).appended_count for _ in range(2)
    ]
    assert counts == [1, 0]
    log = await auth.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(organization_id=str(acme.organization_id)),
        metadata=auth.person(acme.owner_id, acme.organization_id),
    )
    assert [dict(found.details) for found in log.audit_entries] == [{"plan_id": "pro"}]
