"""A new signing key is published before it signs, on every replica; the old one goes when its last token has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.rpc.errors import from_grpc
from mesh.rpc.tokens import SESSION_SECONDS, read_jwks, read_session_key_id, read_session_token
from services.auth import signing_keys
from services.auth.signing_keys import NEEDED_SECONDS, PUBLISHED_SECONDS, RING_SECONDS_MAX
from tests.support.accounts import PASSWORD, SeededOrganization, seed_organization
from tests.support.running_auth import RunningAuth, running_auth


@pytest.fixture
async def acme(auth: RunningAuth) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def replica(auth: RunningAuth) -> AsyncIterator[RunningAuth]:
    """A second auth on the same database."""
    async with running_auth(auth.database) as running:
        yield running


@pytest.fixture
def clock(auth: RunningAuth, replica: RunningAuth) -> ManualClock:
    """The time of keys and tokens on both replicas."""
    clock = ManualClock(datetime.now(UTC))
    for each in (auth, replica):
        each.signing_keys._clock = clock
        each.signing_keys._read_at = float("-inf")
        for signer in each.signing_keys._signers.values():
            signer._clock = clock
    return clock


def operator(auth: RunningAuth, acme: SeededOrganization, platform_role: str = "admin") -> list[tuple[str, str]]:
    token, _ = auth.signer.issue(
        person_id=acme.owner_id,
        organization_id=acme.organization_id,
        role="member",
        platform_roles=[platform_role],
        membership_version=2**53 - 1,
    )
    return [("authorization", f"Bearer {token}")]


async def rotate(auth: RunningAuth, acme: SeededOrganization, key: str = "") -> pb.RotateSigningKeyResponse:
    request = pb.RotateSigningKeyRequest(idempotency_key=key)
    return await auth.stub.RotateSigningKey(request, metadata=operator(auth, acme))


async def key_ids(auth: RunningAuth) -> list[str]:
    return list(read_jwks((await auth.stub.GetJwks(pb.GetJwksRequest())).jwks_json))


async def sign_in(auth: RunningAuth, acme: SeededOrganization) -> str:
    answer = await auth.stub.CreateSession(pb.CreateSessionRequest(email=acme.email, password=PASSWORD))
    return str(answer.access_token)


async def eventually(auth: RunningAuth, wanted: list[str]) -> None:
    async with asyncio.timeout(30):
        while await key_ids(auth) != wanted:
            await asyncio.sleep(0.01)


async def test_a_key_is_published_then_signs_then_only_verifies_then_goes(
    auth: RunningAuth, replica: RunningAuth, acme: SeededOrganization, clock: ManualClock
) -> None:
    stopping = asyncio.Event()
    following = asyncio.create_task(replica.signing_keys.run(stopping))
    (first,) = await key_ids(auth)
    assert await key_ids(replica) == [first]
    rotated = await rotate(auth, acme)
    # Published at once, here and on the other replica, and not used yet.
    assert await key_ids(auth) == [first, rotated.key_id]
    await eventually(replica, [first, rotated.key_id])
    assert rotated.active_time.ToDatetime(tzinfo=UTC) == clock.now() + timedelta(seconds=PUBLISHED_SECONDS)
    clock.advance(PUBLISHED_SECONDS - 1)
    assert {read_session_key_id(await sign_in(each, acme)) for each in (auth, replica)} == {first}
    last = await sign_in(auth, acme)
    clock.advance(1)
    assert {read_session_key_id(await sign_in(each, acme)) for each in (auth, replica)} == {rotated.key_id}
    # The old one verifies until its last token has ended, and longer.
    clock.advance(SESSION_SECONDS - 2)
    jwks = (await replica.stub.GetJwks(pb.GetJwksRequest())).jwks_json
    assert read_session_token(last, read_jwks(jwks), clock.now()).person_id == acme.owner_id
    assert await signing_keys.remove_retired(auth.db, clock) == 0
    clock.advance(NEEDED_SECONDS - SESSION_SECONDS + 3)
    assert await key_ids(replica) == [rotated.key_id]
    assert await signing_keys.remove_retired(auth.db, clock) == 1
    await auth.signing_keys.load()
    await eventually(replica, [rotated.key_id])
    assert await key_ids(auth) == [rotated.key_id]
    stopping.set()
    await following


async def test_a_replica_that_heard_nothing_reads_the_keys_before_it_signs(
    auth: RunningAuth, replica: RunningAuth, acme: SeededOrganization, clock: ManualClock
) -> None:
    await sign_in(replica, acme)
    rotated = await rotate(auth, acme)
    clock.advance(PUBLISHED_SECONDS)
    assert PUBLISHED_SECONDS > RING_SECONDS_MAX
    assert read_session_key_id(await sign_in(replica, acme)) == rotated.key_id


async def test_a_rotation_is_the_operators_is_audited_and_not_piled_up(
    auth: RunningAuth, acme: SeededOrganization
) -> None:
    owner = auth.person(acme.owner_id, acme.organization_id)
    for metadata in (owner, operator(auth, acme, "support")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await auth.stub.RotateSigningKey(pb.RotateSigningKeyRequest(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    rotated = await rotate(auth, acme, "once")
    assert await rotate(auth, acme, "once") == rotated
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rotate(auth, acme, "twice")
    assert from_grpc(refused.value).reason == "SIGNING_KEY_PENDING"
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT resource, actor FROM audit_entries WHERE action = 'signing_key.rotate'")
    assert [tuple(row.values()) for row in rows] == [(f"signing_key/{rotated.key_id}", str(acme.owner_id))]


async def test_operators_who_rotate_at_once_make_one_key(auth: RunningAuth, acme: SeededOrganization) -> None:
    answers = await asyncio.gather(*(rotate(auth, acme, str(number)) for number in range(8)), return_exceptions=True)
    assert len([each for each in answers if isinstance(each, pb.RotateSigningKeyResponse)]) == 1
    assert len(await key_ids(auth)) == 2


async def test_replicas_that_start_at_once_with_different_keys_agree_on_one(auth: RunningAuth) -> None:
    async with auth.db.system() as tx:
        await tx.execute("DELETE FROM signing_keys")
    async with running_auth(auth.database) as one, running_auth(auth.database) as other:
        async with auth.db.system() as tx:
            await tx.execute("DELETE FROM signing_keys")
        other.signing_keys._first_seed = b"t" * 32
        await asyncio.gather(*(each.signing_keys.load() for each in (one, other)))
        assert await key_ids(one) == await key_ids(other)
        assert len(await key_ids(one)) == 1


async def test_no_private_key_is_stored_or_published_in_clear(auth: RunningAuth, acme: SeededOrganization) -> None:
    await rotate(auth, acme)
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT key_id, public_key, seed FROM signing_keys")
    assert len(rows) == 2
    assert b"s" * 32 not in b"".join(row["seed"] for row in rows)
    published = json.loads((await auth.stub.GetJwks(pb.GetJwksRequest())).jwks_json)["keys"]
    assert {frozenset(each) for each in published} == {frozenset({"kty", "crv", "x", "kid", "use", "alg"})}


async def test_without_a_key_nothing_is_signed_and_that_is_said(auth: RunningAuth, acme: SeededOrganization) -> None:
    auth.signing_keys._keys = []
    for call in (auth.stub.GetJwks(pb.GetJwksRequest()), sign_in_with_no_keys(auth, acme)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert from_grpc(refused.value).reason == "SIGNING_KEYS_UNAVAILABLE"


async def sign_in_with_no_keys(auth: RunningAuth, acme: SeededOrganization) -> str:
    auth.signing_keys._read_at = float("inf")
    return await sign_in(auth, acme)
