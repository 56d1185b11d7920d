"""Keys change, are replaced and are listed; nobody gives one more than they may do."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from contract import key_format
from services.auth.key_limits import KeyLimits
from services.auth.store.keys import QUERIES
from tests.support.accounts import PEPPER, SeededOrganization, seed_key, seed_organization, seed_person
from tests.support.key_calls import (
    create_request,
    in_future,
    owner_of,
    refusal,
    resolve,
    rotate_request,
    update_request,
)
from tests.support.postgres import TestDatabase
from tests.support.running_auth import running_auth

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def other(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "other")


async def member_of(auth: Any, organization: SeededOrganization, role: str = "member") -> Any:
    person_id = await seed_person(
        auth.database.dsn("auth_system"), organization.organization_id, f"{role}@acme.example", role
    )
    return auth.person(person_id, organization.organization_id, role)


def operator(auth: Any, organization: SeededOrganization) -> Any:
    token, _ = auth.signer.issue(
        person_id=organization.owner_id,
        organization_id=organization.organization_id,
        role="member",
        platform_roles=["admin"],
    )
    return [("authorization", f"Bearer {token}")]


async def create(auth: Any, organization: SeededOrganization, metadata: Any = None, **fields: Any) -> Any:
    return await auth.stub.CreateApiKey(
        create_request(organization, **fields), metadata=metadata or owner_of(auth, organization)
    )


async def audit(auth: Any, organization: SeededOrganization) -> list[pb.AuditEntry]:
    request = pb.ListAuditEntriesRequest(organization_id=str(organization.organization_id))
    return list((await auth.stub.ListAuditEntries(request, metadata=owner_of(auth, organization))).audit_entries)


async def test_what_the_mask_names_is_changed_and_nothing_else(auth: Any, acme: SeededOrganization) -> None:
    created = await create(auth, acme, scopes=["read"], external_subject="user-7")
    api_key_id = created.api_key.api_key_id
    request = update_request(acme, api_key_id, name="new", allowed_ips=["192.0.2.0/24"], expire_time=in_future(hours=1))
    request.api_key.scopes.append("not asked for")
    updated = await auth.stub.UpdateApiKey(request, metadata=owner_of(auth, acme))
    expected = pb.ApiKey()
    expected.CopyFrom(created.api_key)
    expected.MergeFrom(pb.ApiKey(name="new", allowed_ips=["192.0.2.0/24"], expire_time=request.api_key.expire_time))
    assert updated == expected
    got = await auth.stub.GetApiKey(
        pb.GetApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=api_key_id),
        metadata=owner_of(auth, acme),
    )
    assert got == expected
    grant = await resolve(auth, key_format.digest(created.secret, PEPPER))
    assert (list(grant.allowed_ips), grant.expire_time_us) == (
        ["192.0.2.0/24"],
        request.api_key.expire_time.ToMicroseconds(),
    )
    cleared = await auth.stub.UpdateApiKey(
        update_request(acme, api_key_id, "scopes", "expire_time", "external_subject", "allowed_ips"),
        metadata=owner_of(auth, acme),
    )
    assert (list(cleared.scopes), cleared.HasField("expire_time"), cleared.external_subject) == ([], False, "")
    entry = (await audit(auth, acme))[0]
    assert (entry.action, entry.resource) == ("api_key.update", f"api_key/{api_key_id}")
    assert (list(entry.before["scopes"]), list(entry.after["scopes"])) == (["read"], [])


async def test_a_change_that_changes_nothing_leaves_no_trace(auth: Any, acme: SeededOrganization) -> None:
    created = await create(auth, acme, scopes=["read"])
    digest = key_format.digest(created.secret, PEPPER)
    before = await resolve(auth, digest)
    request = update_request(acme, created.api_key.api_key_id, name="ci", scopes=["read"])
    await auth.stub.UpdateApiKey(request, metadata=owner_of(auth, acme))
    assert [entry.action for entry in await audit(auth, acme)] == ["api_key.create"]
    assert (await resolve(auth, digest)).version == before.version


async def test_everything_wrong_with_a_change_is_told_at_once(auth: Any, acme: SeededOrganization) -> None:
    past = timestamp_pb2.Timestamp(seconds=1)
    request = update_request(
        acme, "x", "mode", name="", scopes=["a b", "tollway:root"], allowed_ips=["nowhere"], expire_time=past
    )
    request.api_key.organization_id = MISSING
    refused = await refusal(auth.stub.UpdateApiKey(request, metadata=owner_of(auth, acme)))
    assert {violation.field for violation in refused.violations} == {
        "api_key.api_key_id",
        "api_key.organization_id",
        "api_key.name",
        "api_key.scopes[0]",
        "api_key.scopes[1]",
        "api_key.allowed_ips[0]",
        "api_key.expire_time",
        "update_mask",
    }
    empty = update_request(acme, MISSING)
    refused = await refusal(auth.stub.UpdateApiKey(empty, metadata=owner_of(auth, acme)))
    assert {violation.field for violation in refused.violations} == {"update_mask"}


async def test_members_change_and_rotate_their_own_keys_and_no_others(auth: Any, acme: SeededOrganization) -> None:
    member, admin = await member_of(auth, acme), await member_of(auth, acme, "admin")
    own, foreign = await create(auth, acme, member), await create(auth, acme)

    def update(created: Any) -> Any:
        return update_request(acme, created.api_key.api_key_id, name="new")

    def rotate(created: Any) -> Any:
        return rotate_request(acme, created.api_key.api_key_id)

    assert (await auth.stub.UpdateApiKey(update(own), metadata=member)).name == "new"
    for call in (
        auth.stub.UpdateApiKey(update(foreign), metadata=member),
        auth.stub.RotateApiKey(rotate(foreign), metadata=member),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "API_KEY_NOT_OWN")
    assert (await auth.stub.UpdateApiKey(update(foreign), metadata=admin)).name == "new"
    assert (await auth.stub.RotateApiKey(rotate(own), metadata=member)).api_key.name == "new"
    assert (await auth.stub.RotateApiKey(rotate(foreign), metadata=operator(auth, acme))).api_key.name == "new"


async def test_another_tenants_key_is_not_found_for_changes(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    created = await create(auth, acme)
    for api_key_id in (created.api_key.api_key_id, MISSING):
        for call in (
            auth.stub.UpdateApiKey(update_request(other, api_key_id, name="x"), metadata=owner_of(auth, other)),
            auth.stub.RotateApiKey(rotate_request(other, api_key_id), metadata=owner_of(auth, other)),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")


async def test_a_key_that_has_ended_is_neither_changed_nor_rotated(auth: Any, acme: SeededOrganization) -> None:
    revoked, expired = await create(auth, acme), await create(auth, acme, expire_time=in_future(hours=1))
    organization_id = str(acme.organization_id)
    await auth.stub.RevokeApiKey(
        pb.RevokeApiKeyRequest(organization_id=organization_id, api_key_id=revoked.api_key.api_key_id),
        metadata=owner_of(auth, acme),
    )
    async with auth.db.system() as tx:
        await tx.execute("UPDATE api_keys SET expire_time = now() WHERE expire_time IS NOT NULL")
    for created in (revoked, expired):
        for call in (
            auth.stub.UpdateApiKey(
                update_request(acme, created.api_key.api_key_id, "expire_time"), metadata=owner_of(auth, acme)
            ),
            auth.stub.RotateApiKey(rotate_request(acme, created.api_key.api_key_id), metadata=owner_of(auth, acme)),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_ENDED")


async def test_rotating_ends_the_old_key_at_once(auth: Any, acme: SeededOrganization) -> None:
    old = await create(
        auth, acme, mode=pb.KEY_MODE_TEST, scopes=["read"], allowed_ips=["192.0.2.0/24"], external_subject="user-7"
    )
    new = await auth.stub.RotateApiKey(rotate_request(acme, old.api_key.api_key_id), metadata=owner_of(auth, acme))
    assert new.secret != old.secret
    assert key_format.parse(new.secret) == pb.KEY_MODE_TEST
    before = await resolve(auth, key_format.digest(old.secret, PEPPER))
    after = await resolve(auth, key_format.digest(new.secret, PEPPER))
    assert (before.state, after.state) == (pb.KEY_STATE_REVOKED, pb.KEY_STATE_ACTIVE)
    for field in ("mode", "scopes", "allowed_ips", "external_subject", "expire_time_us"):
        assert getattr(before, field) == getattr(after, field), field
    got = await auth.stub.GetApiKey(
        pb.GetApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=old.api_key.api_key_id),
        metadata=owner_of(auth, acme),
    )
    assert (got.replaced_by_id, got.HasField("revoke_time")) == (new.api_key.api_key_id, True)
    actions = [(entry.action, entry.resource) for entry in await audit(auth, acme)]
    assert actions[:2] == [
        ("api_key.rotate", f"api_key/{old.api_key.api_key_id}"),
        ("api_key.create", f"api_key/{new.api_key.api_key_id}"),
    ]
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM jobs") == 2


async def test_with_an_overlap_the_old_key_ends_after_it_and_never_later_than_before(
    auth: Any, acme: SeededOrganization
) -> None:
    endless, ending = await create(auth, acme), await create(auth, acme, expire_time=in_future(minutes=1))
    asked = datetime.now(UTC)
    for old in (endless, ending):
        new = await auth.stub.RotateApiKey(
            rotate_request(acme, old.api_key.api_key_id, timedelta(hours=1)), metadata=owner_of(auth, acme)
        )
        grant = await resolve(auth, key_format.digest(old.secret, PEPPER))
        assert grant.state == pb.KEY_STATE_ACTIVE
        ends = datetime.fromtimestamp(grant.expire_time_us / 1e6, UTC)
        if old is ending:
            assert grant.expire_time_us == old.api_key.expire_time.ToMicroseconds()
            assert new.api_key.expire_time == old.api_key.expire_time
        else:
            assert timedelta(hours=1) <= ends - asked < timedelta(hours=1, minutes=1)
            assert not new.api_key.HasField("expire_time")
        # It is replaced: not again, and not for longer; shorter it can be.
        again = await refusal(
            auth.stub.RotateApiKey(rotate_request(acme, old.api_key.api_key_id), metadata=owner_of(auth, acme))
        )
        longer = await refusal(
            auth.stub.UpdateApiKey(
                update_request(acme, old.api_key.api_key_id, "expire_time"), metadata=owner_of(auth, acme)
            )
        )
        assert (again.reason, longer.reason) == ("API_KEY_REPLACED", "API_KEY_REPLACED")
        assert again.metadata == {"replaced_by_id": new.api_key.api_key_id}
        shorter = update_request(acme, old.api_key.api_key_id, expire_time=in_future(seconds=30))
        await auth.stub.UpdateApiKey(shorter, metadata=owner_of(auth, acme))


@pytest.mark.parametrize("days", [-1, 31])
async def test_an_overlap_is_bounded(auth: Any, acme: SeededOrganization, days: int) -> None:
    created = await create(auth, acme)
    request = rotate_request(acme, created.api_key.api_key_id, timedelta(days=days))
    refused = await refusal(auth.stub.RotateApiKey(request, metadata=owner_of(auth, acme)))
    assert [violation.field for violation in refused.violations] == ["overlap"]


async def test_a_replay_of_a_rotation_gets_the_same_secret_and_it_is_stored_sealed(
    auth: Any, acme: SeededOrganization
) -> None:
    old = await create(auth, acme)
    request = rotate_request(acme, old.api_key.api_key_id, idempotency_key="once")
    answers = await asyncio.gather(*(auth.stub.RotateApiKey(request, metadata=owner_of(auth, acme)) for _ in range(4)))
    assert len({answer.secret for answer in answers}) == 1
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM api_keys") == 2
        stored = await tx.fetchval("SELECT response FROM idempotency_keys")
    assert answers[0].secret.encode() not in stored


async def test_many_who_rotate_one_key_at_once_make_one_new_key(auth: Any, acme: SeededOrganization) -> None:
    old = await create(auth, acme)
    request = rotate_request(acme, old.api_key.api_key_id, timedelta(hours=1))

    async def rotate() -> str:
        try:
            await auth.stub.RotateApiKey(request, metadata=owner_of(auth, acme))
        except grpc.aio.AioRpcError as error:
            return error.details() or ""
        return ""

    outcomes = await asyncio.gather(*(rotate() for _ in range(8)))
    assert outcomes.count("") == 1
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM api_keys") == 2


async def test_a_full_organization_rotates_without_an_overlap(database: TestDatabase) -> None:
    limits = KeyLimits(per_organization_max=2, per_person_and_minute_max=100)
    async with running_auth(database, limits=limits) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        one = await create(auth, acme)
        await create(auth, acme)
        overlapping = rotate_request(acme, one.api_key.api_key_id, timedelta(hours=1))
        refused = await refusal(auth.stub.RotateApiKey(overlapping, metadata=owner_of(auth, acme)))
        assert refused.reason == "API_KEY_LIMIT_REACHED"
        two = await auth.stub.RotateApiKey(rotate_request(acme, one.api_key.api_key_id), metadata=owner_of(auth, acme))
        assert two.secret
        assert (await refusal(create(auth, acme))).reason == "API_KEY_LIMIT_REACHED"


async def test_rotating_is_as_slow_as_creating(database: TestDatabase) -> None:
    limits = KeyLimits(per_organization_max=100, per_person_and_minute_max=3)
    async with running_auth(database, limits=limits) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        newest = await create(auth, acme)
        for _ in range(2):
            newest = await auth.stub.RotateApiKey(
                rotate_request(acme, newest.api_key.api_key_id), metadata=owner_of(auth, acme)
            )
        refused = await refusal(
            auth.stub.RotateApiKey(rotate_request(acme, newest.api_key.api_key_id), metadata=owner_of(auth, acme))
        )
        assert refused.reason == "API_KEYS_CREATED_TOO_FAST"


async def test_scopes_of_tollway_are_given_by_those_who_may_and_others_by_anybody(
    auth: Any, acme: SeededOrganization
) -> None:
    member = await member_of(auth, acme)
    own = await create(auth, acme, member, scopes=["reports:read", "events:read"])
    for call in (
        create(auth, acme, member, scopes=["events:write"]),
        auth.stub.UpdateApiKey(update_request(acme, own.api_key.api_key_id, scopes=["events:write"]), metadata=member),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_NOT_ALLOWED")
        assert refused.metadata == {"scope": "events:write"}
    for metadata in (owner_of(auth, acme), await member_of(auth, acme, "admin"), operator(auth, acme)):
        created = await create(auth, acme, metadata, scopes=["events:write"])
        assert list(created.api_key.scopes) == ["events:write"]


async def test_what_a_service_account_gives_of_tollways_own_ends_with_it(auth: Any, acme: SeededOrganization) -> None:
    account = await auth.stub.CreateServiceAccount(
        pb.CreateServiceAccountRequest(
            organization_id=str(acme.organization_id),
            name="ci",
            role=access_pb2.ROLE_ADMIN,
            expire_time=in_future(days=10),
        ),
        metadata=owner_of(auth, acme),
    )
    machine = [("authorization", f"Bearer {account.token}")]
    free = await create(auth, acme, machine, scopes=["reports:read"])
    assert not free.api_key.HasField("expire_time")
    bounded = await create(auth, acme, machine, scopes=["events:write"], expire_time=in_future(days=9))
    for call in (
        create(auth, acme, machine, scopes=["events:write"]),
        create(auth, acme, machine, scopes=["events:write"], expire_time=in_future(days=11)),
        auth.stub.UpdateApiKey(
            update_request(acme, free.api_key.api_key_id, scopes=["events:write"]), metadata=machine
        ),
        auth.stub.UpdateApiKey(
            update_request(acme, bounded.api_key.api_key_id, expire_time=in_future(days=11)), metadata=machine
        ),
        auth.stub.UpdateApiKey(update_request(acme, bounded.api_key.api_key_id, "expire_time"), metadata=machine),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_OUTLIVES_CREATOR")
    longer = update_request(acme, bounded.api_key.api_key_id, expire_time=in_future(days=11))
    await auth.stub.UpdateApiKey(longer, metadata=owner_of(auth, acme))
    refused = await refusal(auth.stub.RotateApiKey(rotate_request(acme, bounded.api_key.api_key_id), metadata=machine))
    assert refused.reason == "API_KEY_OUTLIVES_CREATOR"


async def test_a_member_cannot_carry_a_given_scope_further(auth: Any, acme: SeededOrganization) -> None:
    member = await member_of(auth, acme)
    own = await create(auth, acme, member, expire_time=in_future(hours=1))
    given = update_request(acme, own.api_key.api_key_id, scopes=["events:write", "read"])
    await auth.stub.UpdateApiKey(given, metadata=owner_of(auth, acme))
    for call in (
        auth.stub.RotateApiKey(rotate_request(acme, own.api_key.api_key_id), metadata=member),
        auth.stub.UpdateApiKey(
            update_request(acme, own.api_key.api_key_id, expire_time=in_future(hours=2)), metadata=member
        ),
    ):
        assert (await refusal(call)).reason == "SCOPE_NOT_ALLOWED"
    for fields in ({"name": "new"}, {"scopes": ["events:write"]}, {"scopes": []}):
        request = update_request(acme, own.api_key.api_key_id, **fields)
        await auth.stub.UpdateApiKey(request, metadata=member)
    request = update_request(acme, own.api_key.api_key_id, scopes=["events:write"])
    assert (await refusal(auth.stub.UpdateApiKey(request, metadata=member))).reason == "SCOPE_NOT_ALLOWED"


async def test_a_restricted_organization_rotates_keys_and_gets_no_new_ones(auth: Any, acme: SeededOrganization) -> None:
    created = await create(auth, acme)
    async with auth.db.system() as tx:
        await tx.execute("UPDATE organizations SET restricted = true")
    assert (await refusal(create(auth, acme))).reason == "ORGANIZATION_RESTRICTED"
    new = await auth.stub.RotateApiKey(
        rotate_request(acme, created.api_key.api_key_id, timedelta(hours=1)), metadata=owner_of(auth, acme)
    )
    async with auth.db.system() as tx:
        await tx.execute("UPDATE organizations SET suspended = true")
    for call in (
        create(auth, acme),
        auth.stub.RotateApiKey(rotate_request(acme, new.api_key.api_key_id), metadata=owner_of(auth, acme)),
    ):
        assert (await refusal(call)).reason == "ORGANIZATION_SUSPENDED"


async def test_a_grant_says_the_plan_and_whether_the_organization_is_restricted(
    auth: Any, acme: SeededOrganization
) -> None:
    digest = key_format.digest((await create(auth, acme)).secret, PEPPER)
    before = await resolve(auth, digest)
    async with auth.db.system() as tx:
        await tx.execute("UPDATE organizations SET plan_id = 'pro', restricted = true")
    after = await resolve(auth, digest)
    assert (before.plan_id, before.restricted, after.plan_id, after.restricted) == ("", False, "pro", True)
    assert after.version > before.version


async def test_the_database_keeps_an_ended_or_replaced_key_ended(auth: Any, acme: SeededOrganization) -> None:
    dsn = auth.database.dsn("auth_system")
    api_key_id, _ = await seed_key(dsn, acme.organization_id, acme.owner_id)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "UPDATE api_keys SET replaced_by_id = api_key_id, expire_time = now() WHERE api_key_id = $1", api_key_id
        )
        for change in (
            "expire_time = NULL",
            "expire_time = now() + interval '1 day'",
            "replaced_by_id = NULL",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"UPDATE api_keys SET {change} WHERE api_key_id = $1", api_key_id)
        await connection.execute("UPDATE api_keys SET expire_time = now() - interval '1 day', revoke_time = now()")
    finally:
        await connection.close()


async def test_keys_are_listed_by_mode_and_usability(auth: Any, acme: SeededOrganization) -> None:
    member = await member_of(auth, acme)
    live, test = await create(auth, acme), await create(auth, acme, mode=pb.KEY_MODE_TEST)
    theirs = await create(auth, acme, member, mode=pb.KEY_MODE_TEST)
    revoked, expired = await create(auth, acme), await create(auth, acme, expire_time=in_future(hours=1))
    await auth.stub.RevokeApiKey(
        pb.RevokeApiKeyRequest(organization_id=str(acme.organization_id), api_key_id=revoked.api_key.api_key_id),
        metadata=owner_of(auth, acme),
    )
    async with auth.db.system() as tx:
        await tx.execute("UPDATE api_keys SET expire_time = now() WHERE expire_time IS NOT NULL")

    async def listed(**fields: Any) -> list[str]:
        found, token = [], ""
        while True:
            request = pb.ListApiKeysRequest(
                organization_id=str(acme.organization_id), page_size=1, page_token=token, **fields
            )
            page = await auth.stub.ListApiKeys(request, metadata=owner_of(auth, acme))
            found += [key.api_key_id for key in page.api_keys]
            token = page.next_page_token
            if not token:
                return found

    def ids(*created: Any) -> list[str]:
        return [one.api_key.api_key_id for one in created]

    owner_id, member_id = str(acme.owner_id), theirs.api_key.creator_id
    assert await listed() == ids(expired, revoked, theirs, test, live)
    assert await listed(mode=pb.KEY_MODE_TEST) == ids(theirs, test)
    assert await listed(mode=pb.KEY_MODE_LIVE) == ids(expired, revoked, live)
    assert await listed(usable_only=True) == ids(theirs, test, live)
    assert await listed(usable_only=True, mode=pb.KEY_MODE_TEST) == ids(theirs, test)
    assert await listed(creator_id=owner_id) == ids(expired, revoked, test, live)
    assert await listed(creator_id=owner_id, mode=pb.KEY_MODE_LIVE) == ids(expired, revoked, live)
    assert await listed(creator_id=owner_id, usable_only=True) == ids(test, live)
    assert await listed(creator_id=member_id, usable_only=True, mode=pb.KEY_MODE_TEST) == ids(theirs)
    request = pb.ListApiKeysRequest(organization_id=str(acme.organization_id), page_size=1)
    page = await auth.stub.ListApiKeys(request, metadata=owner_of(auth, acme))
    request = pb.ListApiKeysRequest(
        organization_id=str(acme.organization_id), usable_only=True, page_token=page.next_page_token
    )
    refused = await refusal(auth.stub.ListApiKeys(request, metadata=owner_of(auth, acme)))
    assert [violation.field for violation in refused.violations] == ["page_token"]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("select_api_keys", "api_keys_pkey"),
        ("select_api_keys_of_mode", "api_keys_mode_idx"),
        ("select_api_keys_of_creator", "api_keys_creator_idx"),
        ("select_usable_api_keys", "api_keys_usable_idx"),
        ("select_usable_api_keys_of_creator", "api_keys_usable_creator_idx"),
    ],
)
async def test_each_way_to_list_reads_its_own_index_and_sorts_nothing(
    auth: Any, acme: SeededOrganization, other: SeededOrganization, name: str, index: str
) -> None:
    admin = await asyncpg.connect(auth.database.dsn("auth_system"))
    try:
        await admin.execute(
            "INSERT INTO api_keys (organization_id, api_key_id, digest, pepper_version, name, hint, mode, creator_id,"
            " create_time, revoke_time) SELECT CASE n % 2 WHEN 0 THEN $1::uuid ELSE $2::uuid END, gen_random_uuid(),"
            " sha256(n::text::bytea), 1, 'x', 'x', CASE n % 100 WHEN 0 THEN 'test' ELSE 'live' END,"
            " CASE n % 10 WHEN 0 THEN $3::uuid ELSE gen_random_uuid() END, now(),"
            " CASE n % 20 WHEN 0 THEN NULL ELSE now() END FROM generate_series(1, 20000) AS n",
            acme.organization_id,
            other.organization_id,
            acme.owner_id,
        )
    finally:
        await admin.close()
    owner = await asyncpg.connect(auth.database.dsn("owner"))
    await owner.execute("ANALYZE auth.api_keys")
    await owner.close()
    statement = QUERIES[name]
    count = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    async with auth.db.tenant(acme.organization_id) as tx:
        await tx.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await tx.execute(f"PREPARE listing AS {statement}")
        lines = await tx.fetch(f"EXPLAIN EXECUTE listing ({', '.join(['NULL'] * count)})")
        await tx.execute("DEALLOCATE listing")
    plan = "\n".join(line[0] for line in lines)
    assert index in plan, plan
    assert "Sort" not in plan, plan
    assert "Seq Scan" not in plan, plan
