"""API keys through the RPCs: roles, tenants, replays, pages and the traces they leave."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from contract import key_format
from mesh.rpc.errors import ReceivedError, from_grpc
from services.auth.key_limits import KeyLimits
from tests.support.accounts import PEPPER, SeededOrganization, seed_key, seed_organization, seed_person
from tests.support.postgres import TestDatabase, TestPostgres
from tests.support.running_auth import running_auth

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def other(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "other")


def owner_of(auth: Any, organization: SeededOrganization) -> Any:
    return auth.person(organization.owner_id, organization.organization_id)


def create_request(organization: SeededOrganization, **fields: Any) -> pb.CreateApiKeyRequest:
    return pb.CreateApiKeyRequest(organization_id=str(organization.organization_id), **{"name": "ci", **fields})


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def count(auth: Any, table: str) -> int:
    async with auth.db.system() as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_created_key_resolves_and_its_secret_is_not_stored(auth: Any, acme: SeededOrganization) -> None:
    created = await auth.stub.CreateApiKey(
        create_request(acme, scopes=["read"], allowed_ips=["192.0.2.0/24"], external_subject="user-7"),
        metadata=owner_of(auth, acme),
    )
    assert key_format.parse(created.secret) == pb.KEY_MODE_LIVE
    assert created.api_key.hint == key_format.hint(created.secret)
    assert created.api_key.creator_id == str(acme.owner_id)
    digest = key_format.digest(created.secret, PEPPER)
    answer = await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=auth.process("edge_proxy"))
    (grant,) = answer.grants
    assert (list(grant.scopes), list(grant.allowed_ips), grant.external_subject) == (
        ["read"],
        ["192.0.2.0/24"],
        "user-7",
    )
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT k::text FROM api_keys AS k") + await tx.fetch("SELECT j::text FROM jobs AS j")
    assert all(created.secret not in row[0] for row in rows)


async def test_a_key_for_an_organization_that_is_not_there_is_not_found(auth: Any, acme: SeededOrganization) -> None:
    token, _ = auth.signer.issue(
        person_id=acme.owner_id, organization_id=acme.organization_id, role="owner", platform_roles=["admin"]
    )
    request = pb.CreateApiKeyRequest(organization_id=MISSING, name="ci")
    error = await refusal(auth.stub.CreateApiKey(request, metadata=[("authorization", f"Bearer {token}")]))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")


async def test_creating_leaves_an_audit_entry_and_one_job(auth: Any, acme: SeededOrganization) -> None:
    created = await auth.stub.CreateApiKey(create_request(acme), metadata=owner_of(auth, acme))
    log = await auth.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(organization_id=str(acme.organization_id)), metadata=owner_of(auth, acme)
    )
    (entry,) = log.audit_entries
    assert (entry.action, entry.actor, entry.actor_kind) == ("api_key.create", str(acme.owner_id), "person")
    assert entry.address == "ipv4:127.0.0.1"
    assert entry.resource == f"api_key/{created.api_key.api_key_id}"
    assert entry.after["hint"] == created.api_key.hint
    assert await count(auth, "jobs") == 1


@pytest.mark.parametrize("broken", ["mesh.jobs.enqueue", "mesh.secretbox.SecretBox.seal"])
async def test_key_audit_entry_job_and_idempotency_key_are_there_together_or_not_at_all(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_values: Any, **_fields: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(broken, fail)
    refused = await refusal(
        auth.stub.CreateApiKey(create_request(acme, idempotency_key="k"), metadata=owner_of(auth, acme))
    )
    assert refused.code is grpc.StatusCode.INTERNAL
    tables = ("api_keys", "audit_entries", "jobs", "idempotency_keys")
    assert [await count(auth, table) for table in tables] == [0] * len(tables)


async def test_queries_go_to_the_replica_where_there_is_one_and_changes_do_not(
    postgres: TestPostgres, database: TestDatabase
) -> None:
    replica = await postgres.clone()
    async with running_auth(database, read_dsn=replica.dsn("auth")) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        created = await auth.stub.CreateApiKey(create_request(acme), metadata=owner_of(auth, acme))
        listed = await auth.stub.ListApiKeys(
            pb.ListApiKeysRequest(organization_id=str(acme.organization_id)), metadata=owner_of(auth, acme)
        )
        request = pb.GetApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=created.api_key.api_key_id)
        refused = await refusal(auth.stub.GetApiKey(request, metadata=owner_of(auth, acme)))
        assert (len(listed.api_keys), refused.reason, await count(auth, "api_keys")) == (0, "API_KEY_NOT_FOUND", 1)
    await postgres.drop(replica)


async def test_a_replay_gets_the_first_answer_secret_included(auth: Any, acme: SeededOrganization) -> None:
    request = create_request(acme, idempotency_key="deploy-1")
    first = await auth.stub.CreateApiKey(request, metadata=owner_of(auth, acme))
    again = await auth.stub.CreateApiKey(request, metadata=owner_of(auth, acme))
    assert again == first
    assert await count(auth, "api_keys") == 1
    async with auth.db.system() as tx:
        stored = await tx.fetchval("SELECT response FROM idempotency_keys")
    assert first.secret.encode() not in stored


async def test_the_same_idempotency_key_with_another_request_is_refused(auth: Any, acme: SeededOrganization) -> None:
    await auth.stub.CreateApiKey(create_request(acme, idempotency_key="k"), metadata=owner_of(auth, acme))
    refused = await refusal(
        auth.stub.CreateApiKey(create_request(acme, name="else", idempotency_key="k"), metadata=owner_of(auth, acme))
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert await count(auth, "api_keys") == 1


async def test_duplicates_at_the_same_time_make_one_key(auth: Any, acme: SeededOrganization) -> None:
    request = create_request(acme, idempotency_key="once")
    answers = await asyncio.gather(*(auth.stub.CreateApiKey(request, metadata=owner_of(auth, acme)) for _ in range(4)))
    assert len({answer.secret for answer in answers}) == 1
    assert await count(auth, "api_keys") == 1
    assert await count(auth, "jobs") == 1


async def test_no_parallelism_makes_more_keys_than_the_limits_say(database: TestDatabase) -> None:
    limits = KeyLimits(per_organization_max=7, per_person_and_minute_max=5)
    async with running_auth(database, limits=limits) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        other = await seed_organization(database.dsn("auth_system"), "other")
        member_id = await seed_person(database.dsn("auth_system"), acme.organization_id, "m@acme.example", "member")
        member = auth.person(member_id, acme.organization_id, "member")

        async def create(metadata: Any, organization: SeededOrganization = acme, **fields: Any) -> ReceivedError | None:
            try:
                await auth.stub.CreateApiKey(create_request(organization, **fields), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return from_grpc(error)
            return None

        outcomes = await asyncio.gather(*(create(owner_of(auth, acme)) for _ in range(20)))
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert (len(refused), {outcome.reason for outcome in refused}) == (15, {"API_KEYS_CREATED_TOO_FAST"})
        assert refused[0].code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < (refused[0].retry_after_seconds or 0) <= 60
        outcomes = await asyncio.gather(*(create(member, idempotency_key=str(number)) for number in range(5)))
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert (len(refused), {outcome.reason for outcome in refused}) == (3, {"API_KEY_LIMIT_REACHED"})
        assert refused[0].metadata == {"keys_max": "7"}
        assert await count(auth, "api_keys") == 7
        assert await create(owner_of(auth, other), other) is None
        # Revoked keys make room in the organization, but not in the minute.
        async with auth.db.system() as tx:
            await tx.execute("UPDATE api_keys SET revoke_time = now() WHERE creator_id = $1", acme.owner_id)
        assert await create(member, idempotency_key="again") is None
        again = await create(owner_of(auth, acme))
        assert again is not None
        assert again.reason == "API_KEYS_CREATED_TOO_FAST"


async def test_everything_wrong_with_a_new_key_is_told_at_once(auth: Any, acme: SeededOrganization) -> None:
    past = timestamp_pb2.Timestamp(seconds=1)
    request = create_request(acme, name="", scopes=["with space"], allowed_ips=["nowhere"], expire_time=past)
    refused = await refusal(auth.stub.CreateApiKey(request, metadata=owner_of(auth, acme)))
    assert refused.reason == "INVALID_FIELDS"
    assert {violation.field for violation in refused.violations} == {
        "name",
        "scopes[0]",
        "allowed_ips[0]",
        "expire_time",
    }


async def test_revoking_twice_answers_the_same(auth: Any, acme: SeededOrganization) -> None:
    created = await auth.stub.CreateApiKey(create_request(acme), metadata=owner_of(auth, acme))
    request = pb.RevokeApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=created.api_key.api_key_id)
    first = await auth.stub.RevokeApiKey(request, metadata=owner_of(auth, acme))
    again = await auth.stub.RevokeApiKey(request, metadata=owner_of(auth, acme))
    assert first.HasField("revoke_time")
    assert again == first


async def test_members_revoke_their_own_keys_and_no_others(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    member_id = await seed_person(dsn, acme.organization_id, "member@acme.example", "member")
    own_id, _ = await seed_key(dsn, acme.organization_id, member_id)
    foreign_id, _ = await seed_key(dsn, acme.organization_id, acme.owner_id)
    member = auth.person(member_id, acme.organization_id, "member")
    organization_id = str(acme.organization_id)
    own = pb.RevokeApiKeyRequest(organization_id=organization_id, api_key_id=str(own_id))
    foreign = pb.RevokeApiKeyRequest(organization_id=organization_id, api_key_id=str(foreign_id))
    assert (await auth.stub.RevokeApiKey(own, metadata=member)).HasField("revoke_time")
    refused = await refusal(auth.stub.RevokeApiKey(foreign, metadata=member))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "API_KEY_NOT_OWN")
    admin = auth.person(member_id, acme.organization_id, "admin")
    assert (await auth.stub.RevokeApiKey(foreign, metadata=admin)).HasField("revoke_time")


async def test_another_tenants_key_answers_like_a_missing_one(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    key_id, _ = await seed_key(auth.database.dsn("auth_system"), acme.organization_id, acme.owner_id)
    refusals = []
    for api_key_id in (str(key_id), MISSING):
        request = pb.RevokeApiKeyRequest(organization_id=str(other.organization_id), api_key_id=api_key_id)
        refusals.append(await refusal(auth.stub.RevokeApiKey(request, metadata=owner_of(auth, other))))
    assert refusals[0] == refusals[1]
    assert (refusals[0].code, refusals[0].reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT revoke_time FROM api_keys") is None


async def test_another_tenants_organization_answers_like_a_missing_one(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    stranger = owner_of(auth, other)
    for organization_id in (str(acme.organization_id), MISSING):
        for call in (
            auth.stub.ListApiKeys(pb.ListApiKeysRequest(organization_id=organization_id), metadata=stranger),
            auth.stub.GetOrganization(pb.GetOrganizationRequest(organization_id=organization_id), metadata=stranger),
            auth.stub.ListAuditEntries(pb.ListAuditEntriesRequest(organization_id=organization_id), metadata=stranger),
            auth.stub.CreateApiKey(
                pb.CreateApiKeyRequest(organization_id=organization_id, name="x"), metadata=stranger
            ),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")
    assert await count(auth, "api_keys") == 0


async def test_keys_are_listed_in_pages_newest_first(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    dsn = auth.database.dsn("auth_system")
    ids = [str((await seed_key(dsn, acme.organization_id, acme.owner_id))[0]) for _ in range(5)]
    await seed_key(dsn, other.organization_id, other.owner_id)
    listed, token = [], ""
    for size in (2, 2, 1):
        page = await auth.stub.ListApiKeys(
            pb.ListApiKeysRequest(organization_id=str(acme.organization_id), page_size=2, page_token=token),
            metadata=owner_of(auth, acme),
        )
        assert len(page.api_keys) == size
        listed += [api_key.api_key_id for api_key in page.api_keys]
        token = page.next_page_token
    assert (listed, token) == (sorted(ids, reverse=True), "")


async def test_keys_are_got_one_by_one_and_together(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    dsn, metadata = auth.database.dsn("auth_system"), owner_of(auth, acme)
    organization_id = str(acme.organization_id)
    ids = [str((await seed_key(dsn, acme.organization_id, acme.owner_id))[0]) for _ in range(3)]
    foreign = str((await seed_key(dsn, other.organization_id, other.owner_id))[0])
    got = await auth.stub.GetApiKey(
        pb.GetApiKeyRequest(organization_id=organization_id, api_key_id=ids[0]), metadata=metadata
    )
    assert got.api_key_id == ids[0]
    wanted = [ids[2], foreign, ids[0], MISSING, ids[2]]
    batch = await auth.stub.BatchGetApiKeys(
        pb.BatchGetApiKeysRequest(organization_id=organization_id, api_key_ids=wanted), metadata=metadata
    )
    assert [key.api_key_id for key in batch.api_keys] == [ids[2], ids[0]]
    for absent in (foreign, MISSING):
        request = pb.GetApiKeyRequest(organization_id=organization_id, api_key_id=absent)
        refused = await refusal(auth.stub.GetApiKey(request, metadata=metadata))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    too_many = pb.BatchGetApiKeysRequest(organization_id=organization_id, api_key_ids=["x", *ids * 34])
    refused = await refusal(auth.stub.BatchGetApiKeys(too_many, metadata=metadata))
    assert {violation.field for violation in refused.violations} == {"api_key_ids", "api_key_ids[0]"}


async def test_the_keys_of_one_creator_are_listed_in_pages(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    member_id = await seed_person(dsn, acme.organization_id, "member@acme.example", "member")
    own = []
    for _ in range(3):
        own.append(str((await seed_key(dsn, acme.organization_id, member_id))[0]))
        await seed_key(dsn, acme.organization_id, acme.owner_id)
    member = auth.person(member_id, acme.organization_id, "member")
    request = pb.ListApiKeysRequest(organization_id=str(acme.organization_id), page_size=2, creator_id=str(member_id))
    first = await auth.stub.ListApiKeys(request, metadata=member)
    request.page_token = first.next_page_token
    second = await auth.stub.ListApiKeys(request, metadata=member)
    listed = [key.api_key_id for page in (first, second) for key in page.api_keys]
    assert (listed, second.next_page_token) == (own[::-1], "")
    request.creator_id = str(acme.owner_id)
    refused = await refusal(auth.stub.ListApiKeys(request, metadata=member))
    assert [violation.field for violation in refused.violations] == ["page_token"]


async def test_pages_hold_while_keys_come_and_go(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    ids = sorted([str((await seed_key(dsn, acme.organization_id, acme.owner_id))[0]) for _ in range(5)], reverse=True)
    request = pb.ListApiKeysRequest(organization_id=str(acme.organization_id), page_size=2)
    first = await auth.stub.ListApiKeys(request, metadata=owner_of(auth, acme))
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    # The key at which the next page starts, and one that it would have shown.
    await admin.execute("DELETE FROM auth.api_keys WHERE api_key_id = ANY($1)", [UUID(ids[1]), UUID(ids[3])])
    await admin.close()
    await seed_key(dsn, acme.organization_id, acme.owner_id)
    request.page_token = first.next_page_token
    second = await auth.stub.ListApiKeys(request, metadata=owner_of(auth, acme))
    listed = [[key.api_key_id for key in page.api_keys] for page in (first, second)]
    assert listed == [[ids[0], ids[1]], [ids[2], ids[4]]]
    assert second.next_page_token == ""


async def test_a_page_token_of_another_tenant_is_refused(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    dsn = auth.database.dsn("auth_system")
    for _ in range(2):
        await seed_key(dsn, acme.organization_id, acme.owner_id)
    page = await auth.stub.ListApiKeys(
        pb.ListApiKeysRequest(organization_id=str(acme.organization_id), page_size=1), metadata=owner_of(auth, acme)
    )
    request = pb.ListApiKeysRequest(organization_id=str(other.organization_id), page_token=page.next_page_token)
    refused = await refusal(auth.stub.ListApiKeys(request, metadata=owner_of(auth, other)))
    assert [violation.field for violation in refused.violations] == ["page_token"]


async def test_a_key_that_expires_says_when(auth: Any, acme: SeededOrganization) -> None:
    expire_time = timestamp_pb2.Timestamp()
    expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    created = await auth.stub.CreateApiKey(
        create_request(acme, mode=pb.KEY_MODE_TEST, expire_time=expire_time), metadata=owner_of(auth, acme)
    )
    digest = key_format.digest(created.secret, PEPPER)
    answer = await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=auth.process("edge_proxy"))
    assert answer.grants[0].mode == pb.KEY_MODE_TEST
    assert answer.grants[0].expire_time_us == expire_time.ToMicroseconds()


async def test_the_audit_log_cannot_be_changed_by_anybody(auth: Any, acme: SeededOrganization) -> None:
    await auth.stub.CreateApiKey(create_request(acme), metadata=owner_of(auth, acme))
    for role in ("auth_system", "owner", "admin"):
        connection = await asyncpg.connect(auth.database.dsn(role))
        try:
            for statement in ("UPDATE auth.audit_entries SET actor = 'x'", "DELETE FROM auth.audit_entries"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()
