"""What tokens do not know reaches whoever verifies them: from any change in the tables to every watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.errors import from_grpc
from services.auth import principal_changes
from services.auth.store import principals as store
from tests.support.accounts import SeededOrganization, seed_organization, seed_person

VERIFIER = "billing"
READ_SECONDS = 30


@contextlib.asynccontextmanager
async def connected(auth: Any, role: str = "auth_system") -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(auth.database.dsn(role))
    try:
        yield connection
    finally:
        await connection.close()


async def execute(auth: Any, sql: str, *values: Any) -> None:
    async with connected(auth) as connection:
        await connection.execute(sql, *values)


async def seed_session(auth: Any, owner: SeededOrganization) -> UUID:
    session_id, now = RandomIds().uuid7(), datetime.now(UTC)
    await execute(
        auth,
        "INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time,"
        " end_time) VALUES ($1, $2, $3, $4, $4, $5, $5)",
        session_id,
        owner.owner_id,
        owner.organization_id,
        now,
        now + timedelta(days=7),
    )
    return session_id


async def seed_service_account(auth: Any, owner: SeededOrganization, platform_role: str | None = None) -> UUID:
    service_account_id, now = RandomIds().uuid7(), datetime.now(UTC)
    await execute(
        auth,
        "INSERT INTO service_accounts (organization_id, service_account_id, name, role, platform_role, digest,"
        " pepper_version, hint, create_time, expire_time) VALUES ($1, $2, 'ci', 'admin', $3, $4, 1, 'x', $5, $6)",
        owner.organization_id,
        service_account_id,
        platform_role,
        service_account_id.bytes * 2,
        now,
        now + timedelta(days=90),
    )
    return service_account_id


async def open_watch(auth: Any) -> tuple[Any, list[pb.PrincipalChange]]:
    """Open a watch once the listener is connected, and read the snapshot."""
    async with asyncio.timeout(READ_SECONDS):
        while True:
            call = auth.stub.WatchPrincipals(pb.WatchPrincipalsRequest(), metadata=auth.process(VERIFIER))
            try:
                return call, await read_snapshot(call)
            except grpc.aio.AioRpcError as error:
                if from_grpc(error).reason != "PRINCIPAL_WATCH_UNAVAILABLE":
                    raise
                await asyncio.sleep(0.05)


async def read_snapshot(call: Any) -> list[pb.PrincipalChange]:
    changes: list[pb.PrincipalChange] = []
    while True:
        message = await call.read()
        changes += message.changes
        if message.snapshot_complete:
            return changes


async def next_changes(call: Any, count: int = 1) -> list[pb.PrincipalChange]:
    changes: list[pb.PrincipalChange] = []
    async with asyncio.timeout(READ_SECONDS):
        while len(changes) < count:
            changes += (await call.read()).changes
    assert len(changes) == count
    return changes


@pytest.fixture
async def owner(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"))


async def test_an_ended_session_is_pushed_within_a_second_and_is_in_the_snapshot(auth: Any, owner: Any) -> None:
    session_ids = [await seed_session(auth, owner) for _ in range(3)]
    call, snapshot = await open_watch(auth)
    assert snapshot == []
    taken = []
    for session_id in session_ids:
        before = time.time()
        await execute(
            auth, "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x' WHERE session_id = $1", session_id
        )
        committed = time.monotonic()
        (change,) = await next_changes(call)
        taken.append(time.monotonic() - committed)
        assert UUID(change.session.session_id) == session_id
        # By then the last token from before has ended, whoever's clock says so.
        assert change.session.forget_time_s >= before + principal_changes.KEPT.total_seconds()
    assert min(taken) < 1.0, taken
    call.cancel()
    _, snapshot = await open_watch(auth)
    assert {UUID(change.session.session_id) for change in snapshot} == set(session_ids)


async def test_a_session_that_is_removed_before_its_end_has_ended(auth: Any, owner: Any) -> None:
    session_id = await seed_session(auth, owner)
    expired = await seed_session(auth, owner)
    await execute(
        auth, "UPDATE sessions SET expire_time = create_time + interval '1 us' WHERE session_id = $1", expired
    )
    call, _ = await open_watch(auth)
    await execute(auth, "DELETE FROM sessions")
    (change,) = await next_changes(call)
    assert UUID(change.session.session_id) == session_id
    call.cancel()


async def test_a_session_in_use_is_no_change(auth: Any, owner: Any) -> None:
    session_id = await seed_session(auth, owner)
    call, _ = await open_watch(auth)
    await execute(auth, "UPDATE sessions SET last_use_time = now(), address = '192.0.2.1'")
    await execute(auth, "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x'")
    (change,) = await next_changes(call)
    assert UUID(change.session.session_id) == session_id
    call.cancel()


async def test_a_changed_role_is_pushed_with_the_version_that_is_good(auth: Any, owner: Any) -> None:
    member = await seed_person(auth.database.dsn("auth_system"), owner.organization_id, "m@acme.example", "member")
    call, _ = await open_watch(auth)
    await execute(auth, "UPDATE memberships SET role = 'admin' WHERE person_id = $1", member)
    (change,) = await next_changes(call)
    async with connected(auth) as connection:
        version = await connection.fetchval("SELECT version FROM memberships WHERE person_id = $1", member)
    assert (UUID(change.membership.person_id), UUID(change.membership.organization_id), change.membership.version) == (
        member,
        owner.organization_id,
        version,
    )
    call.cancel()


async def test_who_leaves_and_joins_again_is_refused_with_the_old_token_alone(auth: Any, owner: Any) -> None:
    dsn = auth.database.dsn("auth_system")
    member = await seed_person(dsn, owner.organization_id, "m@acme.example", "member")
    call, _ = await open_watch(auth)
    async with connected(auth) as connection:
        old = await connection.fetchval("SELECT version FROM memberships WHERE person_id = $1", member)
        await connection.execute("DELETE FROM memberships WHERE person_id = $1", member)
        await connection.execute(
            "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, 'member', now())",
            owner.organization_id,
            member,
        )
        new = await connection.fetchval("SELECT version FROM memberships WHERE person_id = $1", member)
    (change,) = await next_changes(call)
    assert old < change.membership.version <= new
    call.cancel()
    _, snapshot = await open_watch(auth)
    assert [UUID(each.membership.person_id) for each in snapshot] == [member]


@pytest.mark.parametrize("loses", [True, False])
async def test_an_operators_role_changes_their_memberships(auth: Any, owner: Any, loses: bool) -> None:
    gain = "INSERT INTO platform_roles (person_id, role, create_time) SELECT person_id, $1, now() FROM people"
    if loses:
        await execute(auth, gain, "platform_admin")
    call, _ = await open_watch(auth)
    await (execute(auth, "DELETE FROM platform_roles") if loses else execute(auth, gain, "platform_admin"))
    (change,) = await next_changes(call)
    assert UUID(change.membership.person_id) == owner.owner_id
    call.cancel()


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("state = 'suspended'", pb.ORGANIZATION_STATE_SUSPENDED),
        ("suspended = true", pb.ORGANIZATION_STATE_SUSPENDED),
        ("state = 'deleted', delete_time = now()", pb.ORGANIZATION_STATE_DELETED),
    ],
)
async def test_an_organizations_state_is_pushed_and_is_in_the_snapshot(
    auth: Any, owner: Any, change: str, state: int
) -> None:
    call, _ = await open_watch(auth)
    await execute(auth, f"UPDATE organizations SET {change}")
    (pushed,) = await next_changes(call)
    assert (UUID(pushed.organization.organization_id), pushed.organization.state) == (owner.organization_id, state)
    call.cancel()
    _, snapshot = await open_watch(auth)
    assert snapshot == [pushed]


async def test_an_organization_is_suspended_for_as_long_as_it_is(auth: Any, owner: Any) -> None:
    await execute(auth, "UPDATE organizations SET state = 'suspended'")
    await execute(auth, "DELETE FROM principal_changes")
    call, (suspended,) = await open_watch(auth)
    assert suspended.organization.state == pb.ORGANIZATION_STATE_SUSPENDED
    await execute(auth, "UPDATE organizations SET state = 'active'")
    (restored,) = await next_changes(call)
    assert restored.organization.state == pb.ORGANIZATION_STATE_ACTIVE
    assert restored.organization.version > suspended.organization.version
    call.cancel()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE service_accounts SET revoke_time = now()",
        "UPDATE service_accounts SET role = 'member'",
        "UPDATE service_accounts SET platform_role = NULL",
        "UPDATE service_accounts SET expire_time = now()",
        "UPDATE service_accounts SET digest = sha256('x')",
    ],
)
async def test_a_changed_service_account_is_pushed(auth: Any, owner: Any, change: str) -> None:
    service_account_id = await seed_service_account(auth, owner, "platform_support")
    call, _ = await open_watch(auth)
    await execute(auth, change)
    (pushed,) = await next_changes(call)
    assert UUID(pushed.service_account.service_account_id) == service_account_id
    call.cancel()


async def test_many_changes_of_one_transaction_are_one_notice_and_all_come(auth: Any, owner: Any) -> None:
    count = 2_500
    async with connected(auth) as connection:
        await connection.execute(
            "INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time,"
            " end_time) SELECT gen_random_uuid(), $1, $2, now(), now(), now() + interval '7 days', now() + interval"
            " '7 days' FROM generate_series(1, $3)",
            owner.owner_id,
            owner.organization_id,
            count,
        )
    call, _ = await open_watch(auth)
    heard: list[str] = []
    async with connected(auth) as listener:
        await listener.add_listener(principal_changes.CHANNEL, lambda *notice: heard.append(notice[3]))
        await execute(auth, "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x'")
        changes = await next_changes(call, count)
    assert len({change.session.session_id for change in changes}) == count
    assert len(heard) == 1
    call.cancel()


async def test_more_than_fits_into_a_snapshot_refuses_what_is_older(auth: Any, owner: Any) -> None:
    for _ in range(5):
        await seed_session(auth, owner)
        await execute(auth, "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x' WHERE revoke_time IS NULL")
    async with auth.db.system() as tx:
        times = [row["change_time"] for row in await tx.fetch("SELECT change_time FROM principal_changes ORDER BY 1")]
        parts = await store.take_snapshot(
            tx, since=SystemClock().now() - principal_changes.KEPT, changes_max=3, part_size=2
        )
        changes = [change for part in parts for change in part]
    assert changes[0].issued_before == times[1]
    assert [change.change_time for change in changes[1:]] == times[:1:-1]


async def test_the_clean_up_removes_what_no_valid_token_can_need(auth: Any, owner: Any) -> None:
    await seed_session(auth, owner)
    await execute(auth, "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x'")
    assert await principal_changes.remove_old(auth.db, SystemClock()) == 0
    async with connected(auth, "owner") as connection:
        await connection.execute(
            "UPDATE auth.principal_changes SET change_time = now() - $1::interval", principal_changes.KEPT
        )
    assert await principal_changes.remove_old(auth.db, SystemClock()) == 1
    _, snapshot = await open_watch(auth)
    assert snapshot == []


@pytest.mark.parametrize("role", ["auth", "auth_system"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO principal_changes (kind, subject_id) VALUES ('session', gen_random_uuid())",
        "UPDATE principal_changes SET subject_id = gen_random_uuid()",
    ],
)
async def test_no_role_writes_down_a_change_that_nobody_made(auth: Any, role: str, statement: str) -> None:
    async with connected(auth, role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_auths_own_verifier_refuses_a_deleted_organizations_people(auth: Any, owner: Any) -> None:
    metadata = auth.person(owner.owner_id, owner.organization_id)
    request = pb.GetOrganizationRequest(organization_id=str(owner.organization_id))
    assert (await auth.stub.GetOrganization(request, metadata=metadata)).state == pb.ORGANIZATION_STATE_ACTIVE
    await execute(auth, "UPDATE organizations SET state = 'deleted', delete_time = now()")

    async def call_until_refused() -> None:
        while True:
            await auth.stub.GetOrganization(request, metadata=metadata)
            await asyncio.sleep(0.01)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(call_until_refused(), READ_SECONDS)
    assert from_grpc(refused.value).reason == "CREDENTIALS_INVALID"
