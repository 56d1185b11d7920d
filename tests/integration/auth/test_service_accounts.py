"""Service accounts through the RPCs: who may make which, how their tokens are replaced, and when they end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from contract import key_format
from mesh.rpc import opaque_tokens
from mesh.rpc.errors import ReceivedError, from_grpc
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX
from tests.support.accounts import PEPPER, SeededOrganization, seed_organization, seed_person
from tests.support.machine_tokens import machine_token
from tests.support.postgres import TestDatabase
from tests.support.running_auth import running_auth
from tests.support.teams import until_waiting

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"
OWNER, ADMIN, MEMBER = access_pb2.ROLE_OWNER, access_pb2.ROLE_ADMIN, access_pb2.ROLE_MEMBER


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def operator(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "operator")


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def as_role(auth: Any, organization: SeededOrganization, role: str = "owner", *platform_roles: str) -> Any:
    token, _ = auth.signer.issue(
        person_id=organization.owner_id,
        organization_id=organization.organization_id,
        role=role,
        platform_roles=platform_roles,
    )
    return bearer(token)


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


def at(instant: datetime) -> timestamp_pb2.Timestamp:
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def in_days(days: float) -> timestamp_pb2.Timestamp:
    return at(datetime.now(UTC) + timedelta(days=days))


async def create(auth: Any, organization: SeededOrganization, metadata: Any = None, **fields: Any) -> Any:
    values = {"name": "ci", "role": ADMIN, **fields}
    request = pb.CreateServiceAccountRequest(organization_id=str(organization.organization_id), **values)
    return await auth.stub.CreateServiceAccount(request, metadata=metadata or as_role(auth, organization))


async def update(auth: Any, account: pb.ServiceAccount, metadata: Any, *paths: str, **values: Any) -> pb.ServiceAccount:
    request = pb.UpdateServiceAccountRequest(
        organization_id=account.organization_id,
        service_account=pb.ServiceAccount(service_account_id=account.service_account_id, **values),
        update_mask=field_mask_pb2.FieldMask(paths=paths or tuple(values)),
    )
    return await auth.stub.UpdateServiceAccount(request, metadata=metadata)


async def rotate(auth: Any, account: pb.ServiceAccount, metadata: Any, overlap_seconds: int | None = None) -> Any:
    overlap = None if overlap_seconds is None else duration_pb2.Duration(seconds=overlap_seconds)
    request = pb.RotateServiceAccountRequest(
        organization_id=account.organization_id, service_account_id=account.service_account_id, overlap=overlap
    )
    return await auth.stub.RotateServiceAccount(request, metadata=metadata)


async def revoke(auth: Any, account: pb.ServiceAccount, metadata: Any) -> pb.ServiceAccount:
    request = pb.RevokeServiceAccountRequest(
        organization_id=account.organization_id, service_account_id=account.service_account_id
    )
    return await auth.stub.RevokeServiceAccount(request, metadata=metadata)


async def get(auth: Any, account: pb.ServiceAccount, metadata: Any) -> pb.ServiceAccount:
    request = pb.GetServiceAccountRequest(
        organization_id=account.organization_id, service_account_id=account.service_account_id
    )
    return await auth.stub.GetServiceAccount(request, metadata=metadata)


async def resolve(auth: Any, token: str) -> pb.ResolveServiceAccountResponse:
    request = pb.ResolveServiceAccountRequest(token=token)
    return await auth.stub.ResolveServiceAccount(request, metadata=auth.process("billing"))


async def execute(auth: Any, statement: str, *values: Any) -> Any:
    async with auth.db.system() as tx:
        return await tx.fetch(statement, *values)


async def entries(auth: Any, organization: SeededOrganization) -> list[pb.AuditEntry]:
    request = pb.ListAuditEntriesRequest(organization_id=str(organization.organization_id))
    listed = await auth.stub.ListAuditEntries(request, metadata=as_role(auth, organization))
    return list(listed.audit_entries)


async def test_a_new_account_calls_with_its_token_and_the_token_is_stored_nowhere(
    auth: Any, acme: SeededOrganization
) -> None:
    created = await create(auth, acme, name="deploy")
    account = created.service_account
    assert opaque_tokens.is_well_formed(created.token, SERVICE_ACCOUNT_PREFIX)
    assert (account.name, account.role, account.creator_id) == ("deploy", ADMIN, str(acme.owner_id))
    assert account.hint == opaque_tokens.hint(created.token, SERVICE_ACCOUNT_PREFIX)
    days = account.expire_time.ToDatetime(tzinfo=UTC) - account.create_time.ToDatetime(tzinfo=UTC)
    assert days == timedelta(days=90)
    listed = await auth.stub.ListServiceAccounts(
        pb.ListServiceAccountsRequest(organization_id=str(acme.organization_id)), metadata=bearer(created.token)
    )
    assert [each.service_account_id for each in listed.service_accounts] == [account.service_account_id]
    for table in ("service_accounts", "audit_entries", "jobs", "idempotency_keys"):
        rows = await execute(auth, f"SELECT t::text FROM {table} AS t")
        assert all(created.token not in row[0] for row in rows)


async def test_every_change_is_audited_with_what_was_there_before(auth: Any, acme: SeededOrganization) -> None:
    owner = as_role(auth, acme)
    account = (await create(auth, acme)).service_account
    await update(auth, account, owner, name="cd", role=MEMBER)
    await update(auth, account, owner, name="cd")
    await rotate(auth, account, owner, 60)
    revoked = await revoke(auth, account, owner)
    assert await revoke(auth, account, owner) == revoked
    log = await entries(auth, acme)
    assert [entry.action for entry in log] == [
        f"service_account.{verb}" for verb in ("revoke", "rotate", "update", "create")
    ]
    assert {entry.resource for entry in log} == {f"service_account/{account.service_account_id}"}
    assert {entry.actor for entry in log} == {str(acme.owner_id)}
    revoking, rotating, updating, creating = log
    assert not creating.HasField("before")
    assert (updating.before["name"], updating.after["name"]) == ("ci", "cd")
    assert (updating.before["role"], updating.after["role"]) == ("admin", "member")
    assert rotating.before["hint"] != rotating.after["hint"]
    assert rotating.details["previous_expire_time"]
    assert (revoking.before["revoke_time"], bool(revoking.after["revoke_time"])) == (None, True)


@pytest.mark.parametrize("broken", ["services.auth.store.audit.append", "mesh.secretbox.SecretBox.seal"])
async def test_account_audit_entry_and_idempotency_key_are_there_together_or_not_at_all(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_values: Any, **_fields: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(broken, fail)
    assert (await refusal(create(auth, acme, idempotency_key="k"))).code is grpc.StatusCode.INTERNAL
    for table in ("service_accounts", "audit_entries", "idempotency_keys"):
        assert await execute(auth, f"SELECT 1 FROM {table}") == []


async def test_a_replay_gets_the_first_answer_token_included(auth: Any, acme: SeededOrganization) -> None:
    first = await create(auth, acme, idempotency_key="deploy-1")
    again = await create(auth, acme, idempotency_key="deploy-1")
    assert again == first
    (row,) = await execute(auth, "SELECT response FROM idempotency_keys")
    assert first.token.encode() not in row["response"]


async def test_the_old_token_works_until_the_overlap_is_over_and_not_beyond_the_next_rotation(
    auth: Any, acme: SeededOrganization
) -> None:
    owner = as_role(auth, acme)
    first = await create(auth, acme)
    second = await rotate(auth, first.service_account, owner, 3_600)
    assert second.service_account.hint == opaque_tokens.hint(second.token, SERVICE_ACCOUNT_PREFIX)
    for token in (first.token, second.token):
        answer = await resolve(auth, token)
        assert (answer.valid, answer.service_account_id) == (True, first.service_account.service_account_id)
    third = await rotate(auth, first.service_account, owner, 3_600)
    assert [(await resolve(auth, each.token)).valid for each in (first, second, third)] == [False, True, True]
    await execute(auth, "UPDATE service_accounts SET previous_expire_time = now() - interval '1 second'")
    assert [(await resolve(auth, each.token)).valid for each in (first, second, third)] == [False, False, True]


async def test_without_an_overlap_the_old_token_ends_now(auth: Any, acme: SeededOrganization) -> None:
    first = await create(auth, acme)
    second = await rotate(auth, first.service_account, as_role(auth, acme))
    assert [(await resolve(auth, each.token)).valid for each in (first, second)] == [False, True]
    (row,) = await execute(auth, "SELECT digest, previous_digest FROM service_accounts")
    assert (row["digest"], row["previous_digest"]) == (key_format.digest(second.token, PEPPER), None)


async def test_revoking_ends_both_tokens_for_good(auth: Any, acme: SeededOrganization) -> None:
    owner = as_role(auth, acme)
    first = await create(auth, acme)
    second = await rotate(auth, first.service_account, owner, 3_600)
    revoked = await revoke(auth, first.service_account, owner)
    assert revoked.HasField("revoke_time")
    assert [(await resolve(auth, each.token)).valid for each in (first, second)] == [False, False]
    for call in (
        rotate(auth, revoked, owner),
        update(auth, revoked, owner, name="again"),
        update(auth, revoked, owner, expire_time=in_days(9)),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SERVICE_ACCOUNT_ENDED")
    assert await get(auth, revoked, owner) == revoked


async def test_an_expired_account_is_refused_and_cannot_be_prolonged(auth: Any, acme: SeededOrganization) -> None:
    owner = as_role(auth, acme)
    created = await create(auth, acme)
    await execute(auth, "UPDATE service_accounts SET expire_time = now() - interval '1 second'")
    assert not (await resolve(auth, created.token)).valid
    for call in (
        update(auth, created.service_account, owner, expire_time=in_days(9)),
        rotate(auth, created.service_account, owner),
    ):
        assert (await refusal(call)).reason == "SERVICE_ACCOUNT_ENDED"
    assert (await revoke(auth, created.service_account, owner)).HasField("revoke_time")


@pytest.mark.parametrize(("role", "most"), [("owner", 3), ("admin", 2)])
async def test_nobody_gives_or_manages_more_than_they_have(
    auth: Any, acme: SeededOrganization, role: str, most: int
) -> None:
    caller = as_role(auth, acme, role)
    for number, given in enumerate((MEMBER, ADMIN, OWNER), start=1):
        made = (await create(auth, acme, role=given)).service_account
        calls = {
            "create": lambda given=given: create(auth, acme, caller, role=given),
            "update": lambda made=made: update(auth, made, caller, name="x"),
            "rotate": lambda made=made: rotate(auth, made, caller),
            "revoke": lambda made=made: revoke(auth, made, caller),
        }
        for call in calls.values():
            if number <= most:
                await call()
            else:
                refused = await refusal(call())
                assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_ABOVE_OWN")
    low = (await create(auth, acme, role=MEMBER)).service_account
    if most < 3:
        assert (await refusal(update(auth, low, caller, role=OWNER))).reason == "ROLE_ABOVE_OWN"
        assert (await get(auth, low, caller)).role == MEMBER


async def test_members_manage_no_service_accounts(auth: Any, acme: SeededOrganization) -> None:
    made = (await create(auth, acme, role=MEMBER)).service_account
    member = as_role(auth, acme, "member")
    for call in (
        create(auth, acme, member, role=MEMBER),
        update(auth, made, member, name="x"),
        rotate(auth, made, member),
        revoke(auth, made, member),
        get(auth, made, member),
    ):
        assert (await refusal(call)).reason == "ROLE_INSUFFICIENT"


async def test_a_service_account_gives_at_most_its_own_role_and_time(auth: Any, acme: SeededOrganization) -> None:
    admin = await create(auth, acme, role=ADMIN, expire_time=in_days(10))
    caller, ends = bearer(admin.token), admin.service_account.expire_time
    assert (await refusal(create(auth, acme, caller, role=OWNER))).reason == "ROLE_ABOVE_OWN"
    for call in (
        create(auth, acme, caller, role=ADMIN, expire_time=in_days(11)),
        update(auth, admin.service_account, caller, expire_time=in_days(30)),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "SERVICE_ACCOUNT_OUTLIVES_CREATOR",
        )
    child = (await create(auth, acme, caller, role=MEMBER)).service_account
    assert (child.expire_time, child.creator_id) == (ends, admin.service_account.service_account_id)
    assert (await refusal(update(auth, child, caller, expire_time=in_days(30)))).code is (
        grpc.StatusCode.FAILED_PRECONDITION
    )
    (entry, _) = await entries(auth, acme)
    assert (entry.actor, entry.actor_kind) == (admin.service_account.service_account_id, "service_account")


async def test_another_tenants_account_answers_as_a_missing_one(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    theirs = (await create(auth, other)).service_account
    stranger = pb.ServiceAccount(organization_id=str(acme.organization_id), service_account_id=MISSING)
    foreign = pb.ServiceAccount(organization_id=str(acme.organization_id), service_account_id=theirs.service_account_id)
    owner = as_role(auth, acme)
    for one in (stranger, foreign):
        for call in (
            get(auth, one, owner),
            update(auth, one, owner, name="x"),
            rotate(auth, one, owner),
            revoke(auth, one, owner),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_ACCOUNT_NOT_FOUND")
    assert (await refusal(get(auth, theirs, owner))).reason == "ORGANIZATION_NOT_FOUND"
    assert await get(auth, theirs, as_role(auth, other)) == theirs


async def test_pages_show_each_account_once_newest_first(auth: Any, acme: SeededOrganization) -> None:
    made = [(await create(auth, acme, name=f"n{number}")).service_account.name for number in range(5)]
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListServiceAccountsRequest(
            organization_id=str(acme.organization_id), page_size=2, page_token=token
        )
        page = await auth.stub.ListServiceAccounts(request, metadata=as_role(auth, acme))
        found += [each.name for each in page.service_accounts]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]
    refused = await refusal(
        auth.stub.ListServiceAccounts(
            pb.ListServiceAccountsRequest(organization_id=str(acme.organization_id), page_token="x"),
            metadata=as_role(auth, acme),
        )
    )
    assert [violation.field for violation in refused.violations] == ["page_token"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"role": access_pb2.ROLE_UNSPECIFIED}, "role"),
        ({"expire_time": at(datetime(2020, 1, 1, tzinfo=UTC))}, "expire_time"),
        ({"expire_time": in_days(800)}, "expire_time"),
        ({"idempotency_key": "x" * 129}, "idempotency_key"),
    ],
)
async def test_wrong_fields_are_named(auth: Any, acme: SeededOrganization, fields: Any, wrong: str) -> None:
    refused = await refusal(create(auth, acme, **fields))
    assert (refused.code, [each.field for each in refused.violations]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        [wrong],
    )


async def test_wrong_changes_are_named_all_at_once(auth: Any, acme: SeededOrganization) -> None:
    owner = as_role(auth, acme)
    account = (await create(auth, acme)).service_account
    refused = await refusal(update(auth, account, owner, "name", "role", "expire_time"))
    assert [each.field for each in refused.violations] == [
        "service_account.name",
        "service_account.role",
        "service_account.expire_time",
    ]
    for paths in (("hint",), ("name", "platform_role"), ("*",)):
        refused = await refusal(update(auth, account, owner, *paths, name="x"))
        assert [each.field for each in refused.violations] == ["update_mask"]
    request = pb.UpdateServiceAccountRequest(organization_id=account.organization_id, service_account=account)
    refused = await refusal(auth.stub.UpdateServiceAccount(request, metadata=owner))
    assert [each.field for each in refused.violations] == ["update_mask"]
    for seconds in (-1, 7 * 86_400 + 1):
        refused = await refusal(rotate(auth, account, owner, seconds))
        assert [each.field for each in refused.violations] == ["overlap"]
    assert await get(auth, account, owner) == account


async def test_an_expiry_can_be_moved_both_ways(auth: Any, acme: SeededOrganization) -> None:
    owner = as_role(auth, acme)
    account = (await create(auth, acme)).service_account
    for days in (700, 1):
        wanted = in_days(days)
        changed = await update(auth, account, owner, expire_time=wanted)
        assert changed.expire_time.ToDatetime() == wanted.ToDatetime()


async def test_last_use_is_written_once_in_fifteen_minutes_however_often_the_token_is_shown(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await create(auth, acme)
    owner = as_role(auth, acme)
    assert not (await get(auth, created.service_account, owner)).HasField("last_use_time")
    await asyncio.gather(*(resolve(auth, created.token) for _ in range(20)))
    first = (await get(auth, created.service_account, owner)).last_use_time
    (row,) = await execute(auth, "SELECT xmin::text FROM service_accounts")
    with monkeypatch.context() as patched:
        # Not even a statement is spent on what was noted a moment ago.
        patched.setattr("services.auth.store.service_accounts.touch", None)
        answers = await asyncio.gather(*(resolve(auth, created.token) for _ in range(20)))
    assert {answer.valid for answer in answers} == {True}
    assert await execute(auth, "SELECT xmin::text FROM service_accounts") == [row]
    await execute(auth, "UPDATE service_accounts SET last_use_time = last_use_time - interval '16 minutes'")
    await resolve(auth, created.token)
    assert (await get(auth, created.service_account, owner)).last_use_time.ToDatetime() >= first.ToDatetime()


async def test_malformed_tokens_cost_no_query(auth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(auth.db, "system", lambda: asked.append(1))
    good = machine_token("x")
    for wrong in ("", "tw_sa_", good[:-1], good.upper(), good + "0", "tw_sa_ü", "sk_live_" + good[6:], "x" * 8_000):
        assert not (await resolve(auth, wrong)).valid
        request = pb.ListServiceAccountsRequest(organization_id=MISSING)
        if wrong.isascii():
            refused = await refusal(auth.stub.ListServiceAccounts(request, metadata=bearer(wrong)))
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert asked == []


async def test_no_parallelism_makes_more_accounts_than_the_limit(database: TestDatabase) -> None:
    async with running_auth(database, service_accounts_max=3) as auth:
        acme = await seed_organization(database.dsn("auth_system"), "acme")
        made = [await create(auth, acme) for _ in range(2)]
        holder = await asyncpg.connect(database.dsn("auth_system"))
        async with holder.transaction():
            # Nothing is written before this ends, so whoever counts meanwhile finds two.
            await holder.execute("LOCK TABLE service_accounts IN SHARE MODE")
            creating = [asyncio.ensure_future(create(auth, acme)) for _ in range(2)]
            await until_waiting(auth, len(creating))
        await holder.close()
        outcomes = await asyncio.gather(*creating, return_exceptions=True)
        made += [each for each in outcomes if not isinstance(each, BaseException)]
        refused = [from_grpc(each) for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert len(made) == 3
        assert [each.reason for each in refused] == ["SERVICE_ACCOUNT_LIMIT_REACHED"]
        assert refused[0].metadata == {"service_accounts_max": "3"}
        # One that is revoked or has expired makes room.
        await revoke(auth, made[0].service_account, as_role(auth, acme))
        await create(auth, acme)
        await execute(
            auth,
            "UPDATE service_accounts SET expire_time = now() WHERE service_account_id = $1",
            UUID(made[1].service_account.service_account_id),
        )
        await create(auth, acme)
        assert (await refusal(create(auth, acme))).reason == "SERVICE_ACCOUNT_LIMIT_REACHED"


@pytest.mark.parametrize(
    ("column", "reason"), [("restricted", "ORGANIZATION_RESTRICTED"), ("suspended", "ORGANIZATION_SUSPENDED")]
)
async def test_an_organization_that_may_not_grow_makes_none_and_may_revoke(
    auth: Any, acme: SeededOrganization, column: str, reason: str
) -> None:
    made = (await create(auth, acme)).service_account
    await execute(auth, f"UPDATE organizations SET {column} = true")
    assert (await refusal(create(auth, acme))).reason == reason
    assert (await revoke(auth, made, as_role(auth, acme))).HasField("revoke_time")


@pytest.fixture
async def machine(auth: Any, operator: SeededOrganization) -> Any:
    """A service account of the operator's."""
    return await create(
        auth,
        operator,
        as_role(auth, operator, "owner", "admin"),
        role=ADMIN,
        platform_role=access_pb2.PLATFORM_ROLE_ADMIN,
    )


async def test_the_operators_account_acts_in_every_organization(
    auth: Any, acme: SeededOrganization, machine: Any
) -> None:
    assert machine.service_account.platform_role == access_pb2.PLATFORM_ROLE_ADMIN
    answer = await resolve(auth, machine.token)
    assert list(answer.platform_roles) == [access_pb2.PLATFORM_ROLE_ADMIN]
    made = await create(auth, acme, bearer(machine.token), role=OWNER, idempotency_key="k")
    assert (await resolve(auth, made.token)).role == OWNER
    assert await create(auth, acme, bearer(machine.token), role=OWNER, idempotency_key="k") == made
    (entry,) = await entries(auth, acme)
    assert (entry.actor, entry.actor_kind) == (machine.service_account.service_account_id, "service_account")


async def test_only_the_operators_administrators_make_operators(
    auth: Any, acme: SeededOrganization, operator: SeededOrganization
) -> None:
    fields = {"role": MEMBER, "platform_role": access_pb2.PLATFORM_ROLE_SUPPORT}
    for caller in (as_role(auth, operator), as_role(auth, operator, "owner", "support")):
        refused = await refusal(create(auth, operator, caller, **fields))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OPERATORS_SERVICE_ACCOUNT")
    elsewhere = await refusal(create(auth, acme, as_role(auth, operator, "owner", "admin"), **fields))
    assert elsewhere.reason == "PLATFORM_ROLE_ELSEWHERE"
    assert await execute(auth, "SELECT 1 FROM service_accounts") == []


async def test_nobody_but_the_operators_administrators_touches_an_operators_account(
    auth: Any, operator: SeededOrganization, machine: Any
) -> None:
    account, owner = machine.service_account, as_role(auth, operator)
    support, admin = as_role(auth, operator, "owner", "support"), as_role(auth, operator, "owner", "admin")
    for metadata, reason in ((owner, "SERVICE_ACCOUNT_NOT_FOUND"), (support, "OPERATORS_SERVICE_ACCOUNT")):
        for call in (
            update(auth, account, metadata, name="x"),
            rotate(auth, account, metadata),
            revoke(auth, account, metadata),
        ):
            assert (await refusal(call)).reason == reason
    listing = pb.ListServiceAccountsRequest(organization_id=str(operator.organization_id))
    assert not (await auth.stub.ListServiceAccounts(listing, metadata=owner)).service_accounts
    (seen,) = (await auth.stub.ListServiceAccounts(listing, metadata=support)).service_accounts
    assert seen == await get(auth, account, admin)
    assert seen.platform_role == access_pb2.PLATFORM_ROLE_ADMIN
    renamed = await update(auth, account, admin, name="tools")
    assert (renamed.name, renamed.platform_role) == ("tools", access_pb2.PLATFORM_ROLE_ADMIN)
    rotated = await rotate(auth, account, admin)
    assert list((await resolve(auth, rotated.token)).platform_roles) == [access_pb2.PLATFORM_ROLE_ADMIN]


async def test_an_operator_who_names_no_organization_of_ours_is_told(auth: Any, operator: SeededOrganization) -> None:
    admin = as_role(auth, operator, "owner", "admin")
    request = pb.CreateServiceAccountRequest(organization_id=MISSING, name="x", role=MEMBER)
    refused = await refusal(auth.stub.CreateServiceAccount(request, metadata=admin))
    assert refused.reason == "ORGANIZATION_NOT_FOUND"


async def test_two_who_rotate_at_once_get_tokens_of_which_the_last_works(auth: Any, acme: SeededOrganization) -> None:
    made = await create(auth, acme)
    owner = as_role(auth, acme)
    rotated = await asyncio.gather(*(rotate(auth, made.service_account, owner) for _ in range(6)))
    working = [each for each in rotated if (await resolve(auth, each.token)).valid]
    assert len(working) == 1
    assert (await get(auth, made.service_account, owner)).hint == working[0].service_account.hint


async def test_a_member_who_leaves_leaves_the_organizations_accounts_behind(
    auth: Any, acme: SeededOrganization
) -> None:
    admin_id = await seed_person(auth.database.dsn("auth_system"), acme.organization_id, "a@acme.example", "admin")
    made = await create(auth, acme, auth.person(admin_id, acme.organization_id, "admin"))
    await execute(auth, "DELETE FROM memberships WHERE person_id = $1", admin_id)
    assert (await resolve(auth, made.token)).valid


async def test_a_service_account_is_told_who_it_is(auth: Any, acme: SeededOrganization) -> None:
    made = await create(auth, acme, role=MEMBER)
    me = await auth.stub.GetMe(pb.GetMeRequest(), metadata=bearer(made.token))
    assert (me.service_account.service_account_id, me.organization_id, me.role) == (
        made.service_account.service_account_id,
        str(acme.organization_id),
        MEMBER,
    )
    assert me.service_account.HasField("last_use_time")
