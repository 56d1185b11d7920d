"""What billing says of an organization, beside what the operator says; whether something new may come into being."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.ids import RandomIds
from mesh.rpc.errors import ReceivedError, from_grpc
from services.auth.errors import OrganizationNotFound, OrganizationRestricted, OrganizationSuspended
from services.auth.standing import require_growth
from tests.support.accounts import SeededOrganization, seed_key, seed_organization

ACTIVE, SUSPENDED = pb.ORGANIZATION_STATE_ACTIVE, pb.ORGANIZATION_STATE_SUSPENDED
BILLING = "billing"
EDGE = "edge_proxy"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def execute(auth: Any, sql: str, *values: Any) -> None:
    async with auth.db.system() as tx:
        await tx.execute(sql, *values)


async def state(auth: Any, organization_id: Any, version: int, **fields: Any) -> pb.SetOrganizationStateResponse:
    request = pb.SetOrganizationStateRequest(
        organization_id=str(organization_id), state_version=version, **{"plan_id": "starter", **fields}
    )
    answer: pb.SetOrganizationStateResponse = await auth.stub.SetOrganizationState(
        request, metadata=auth.process(BILLING)
    )
    return answer


async def entries(auth: Any, action: str) -> list[tuple[str, str, Any, Any]]:
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT actor_kind, actor, before, after FROM audit_entries WHERE action = $1 ORDER BY audit_entry_id",
            action,
        )
    return [
        (row[0], row[1], *(json.loads(each) if each else None for each in (row["before"], row["after"])))
        for row in rows
    ]


async def test_what_billing_says_is_shown_and_audited(auth: Any, acme: SeededOrganization) -> None:
    answer = await state(auth, acme.organization_id, 7, plan_id="pro", restricted=True)
    assert answer.applied
    organization = await auth.stub.GetOrganization(
        pb.GetOrganizationRequest(organization_id=str(acme.organization_id)),
        metadata=auth.person(acme.owner_id, acme.organization_id, "member"),
    )
    assert organization == answer.organization
    assert (organization.plan_id, organization.restricted, organization.state) == ("pro", True, ACTIVE)
    assert await entries(auth, "organization.set_state") == [
        (
            "process",
            "billing",
            {"plan_id": "", "restricted": False, "suspended": False, "state_version": 0},
            {"plan_id": "pro", "restricted": True, "suspended": False, "state_version": 7},
        )
    ]


@pytest.mark.parametrize("version", [6, 7])
async def test_a_statement_that_is_not_newer_changes_nothing(auth: Any, acme: SeededOrganization, version: int) -> None:
    newest = await state(auth, acme.organization_id, 7, plan_id="pro")
    late = await state(auth, acme.organization_id, version, plan_id="free", suspended=True, restricted=True)
    assert (late.applied, late.organization) == (False, newest.organization)
    assert len(await entries(auth, "organization.set_state")) == 1


async def test_a_replay_gets_the_first_answer(auth: Any, acme: SeededOrganization) -> None:
    first = await state(auth, acme.organization_id, 7, idempotency_key="job 1")
    await state(auth, acme.organization_id, 8, plan_id="pro")
    assert await state(auth, acme.organization_id, 7, idempotency_key="job 1") == first
    assert first.applied
    refused = await refusal(state(auth, acme.organization_id, 9, idempotency_key="job 1"))
    assert refused.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_neither_lifts_what_the_other_has_laid_down(auth: Any, acme: SeededOrganization) -> None:
    await execute(auth, "UPDATE organizations SET state = 'suspended', suspend_reason = 'abuse'")
    both = (await state(auth, acme.organization_id, 1, suspended=True)).organization
    assert (both.state, both.suspend_reason) == (SUSPENDED, "abuse")
    paid = (await state(auth, acme.organization_id, 2)).organization
    assert (paid.state, paid.suspend_reason) == (SUSPENDED, "abuse")
    await state(auth, acme.organization_id, 3, suspended=True)
    await execute(auth, "UPDATE organizations SET state = 'active', suspend_reason = ''")
    unpaid = (await state(auth, acme.organization_id, 3)).organization
    assert (unpaid.state, unpaid.suspend_reason) == (SUSPENDED, "An invoice has not been paid for too long.")
    served = (await state(auth, acme.organization_id, 4)).organization
    assert (served.state, served.suspend_reason) == (ACTIVE, "")


async def test_statements_in_any_order_and_at_once_leave_the_newest(auth: Any, acme: SeededOrganization) -> None:
    versions = list(range(1, 21))
    answers = await asyncio.gather(
        *(state(auth, acme.organization_id, version, plan_id=f"plan {version}") for version in versions)
    )
    assert answers[-1].applied
    assert (await state(auth, acme.organization_id, 1)).organization.plan_id == "plan 20"
    noted = [after["state_version"] for _, _, _, after in await entries(auth, "organization.set_state")]
    assert sorted(noted) == [version for version, answer in zip(versions, answers, strict=True) if answer.applied]


async def test_only_billing_may_say_it(auth: Any, acme: SeededOrganization) -> None:
    request = pb.SetOrganizationStateRequest(organization_id=str(acme.organization_id), plan_id="pro", state_version=1)
    for metadata in (auth.process("metering"), auth.person(acme.owner_id, acme.organization_id)):
        assert (
            await refusal(auth.stub.SetOrganizationState(request, metadata=metadata))
        ).reason == "CALLER_NOT_ALLOWED"
    assert (await refusal(auth.stub.SetOrganizationState(request))).reason == "CREDENTIALS_MISSING"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"plan_id": ""}, "plan_id"),
        ({"plan_id": "p" * 101}, "plan_id"),
        ({"plan_id": "a\nb"}, "plan_id"),
        ({"version": 0}, "state_version"),
        ({"version": -1}, "state_version"),
    ],
)
async def test_a_wrong_statement_is_refused_by_field(
    auth: Any, acme: SeededOrganization, fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(state(auth, acme.organization_id, **{"version": 1, **fields}))
    assert (refused.reason, [each.field for each in refused.violations]) == ("INVALID_FIELDS", [field])


async def test_a_statement_about_nobody_is_not_found(auth: Any) -> None:
    assert (await refusal(state(auth, RandomIds().uuid7(), 1))).reason == "ORGANIZATION_NOT_FOUND"


async def test_every_part_of_the_state_raises_the_version_of_grants_and_is_told(
    auth: Any, acme: SeededOrganization
) -> None:
    _, digest = await seed_key(auth.database.dsn("auth_system"), acme.organization_id, acme.owner_id)
    told: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(auth.database.dsn("auth_system"))
    await listener.add_listener("auth_key_changes", lambda *values: told.put_nowait(values[3]))

    async def grant() -> pb.KeyGrant:
        request = pb.ResolveKeysRequest(digests=[digest])
        (found,) = (await auth.stub.ResolveKeys(request, metadata=auth.process(EDGE))).grants
        return found

    before = await grant()
    says: list[tuple[dict[str, Any], pb.KeyState.ValueType]] = [
        ({"plan_id": "pro"}, pb.KEY_STATE_ACTIVE),
        ({"plan_id": "pro", "restricted": True}, pb.KEY_STATE_ACTIVE),
        ({"plan_id": "pro", "restricted": True, "suspended": True}, pb.KEY_STATE_ORGANIZATION_SUSPENDED),
        ({"plan_id": "pro"}, pb.KEY_STATE_ACTIVE),
    ]
    try:
        for number, (fields, expected) in enumerate(says, 1):
            await state(auth, acme.organization_id, number, **fields)
            after = await grant()
            assert after.version > before.version
            assert after.state == expected
            assert await asyncio.wait_for(told.get(), 30) == f"organization {acme.organization_id}"
            before = after
        await state(auth, acme.organization_id, 9, plan_id="pro")
        assert (await grant()).version == before.version, "nothing that a grant says has changed"
        assert told.empty()
    finally:
        await listener.close()


async def test_a_deleted_organization_stays_deleted_whoever_asks(auth: Any, acme: SeededOrganization) -> None:
    await execute(auth, "UPDATE organizations SET state = 'deleted', delete_time = now()")
    for change in ("state = 'active', delete_time = NULL", "delete_time = delete_time + interval '1 s'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays deleted"):
            await execute(auth, f"UPDATE organizations SET {change}")
    answer = await state(auth, acme.organization_id, 1, suspended=True)
    assert (answer.organization.state, answer.organization.suspend_reason) == (pb.ORGANIZATION_STATE_DELETED, "")


@pytest.mark.parametrize("role", ["tenant", "system"])
async def test_growth_asks_for_an_organization_in_good_standing(auth: Any, acme: SeededOrganization, role: str) -> None:
    async def ask(organization_id: Any) -> None:
        async with auth.db.system() if role == "system" else auth.db.tenant(organization_id) as tx:
            assert (await require_growth(tx, organization_id)).organization_id == organization_id

    await ask(acme.organization_id)
    await state(auth, acme.organization_id, 1, restricted=True)
    with pytest.raises(OrganizationRestricted):
        await ask(acme.organization_id)
    await state(auth, acme.organization_id, 2, suspended=True)
    with pytest.raises(OrganizationSuspended):
        await ask(acme.organization_id)
    await execute(auth, "UPDATE organizations SET state = 'deleted', delete_time = now()")
    with pytest.raises(OrganizationNotFound):
        await ask(acme.organization_id)
    with pytest.raises(OrganizationNotFound):
        await ask(RandomIds().uuid7())


async def test_a_change_of_state_waits_for_what_is_being_added(auth: Any, acme: SeededOrganization) -> None:
    async with auth.db.tenant(acme.organization_id) as tx, auth.db.tenant(acme.organization_id) as beside:
        await require_growth(tx, acme.organization_id)
        await require_growth(beside, acme.organization_id)
        changing = asyncio.ensure_future(state(auth, acme.organization_id, 1, restricted=True))
        _, waiting = await asyncio.wait({changing}, timeout=0.5)
        assert waiting
    assert (await changing).applied
