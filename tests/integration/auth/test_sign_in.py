"""Guessing: no more wrong passwords are verified than the budget says, nobody is kept out, and the audit log tells."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.audit import DENIED_CALL
from mesh.database.pools import DatabaseUnavailable
from mesh.rpc import denials
from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import from_grpc
from services.auth import passwords, store
from services.auth.audit import INSTALLATION
from services.auth.model import AuditFilter
from services.auth.throttle import FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
from tests.support.accounts import PASSWORD, SeededOrganization, seed_organization, seed_person
from tests.support.processes import process_tokens

WRONG = "wrong"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were verified; quickly, as hashing is not what is tested."""
    seen: list[str] = []

    def verify(_password_hash: str, password: str) -> bool:
        seen.append(password)
        return password == PASSWORD

    monkeypatch.setattr(passwords, "_verify", verify)
    return seen


async def sign_in(auth: Any, email: str, password: str, address: str) -> str:
    """Tries to sign in and returns the reason of the refusal, or an empty string."""
    metadata = vouched_address(process_tokens("graphql_gateway"), address, "auth")
    try:
        await auth.stub.CreateSession(pb.CreateSessionRequest(email=email, password=password), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return from_grpc(error).reason
    return ""


async def entries(auth: Any, organization_id: Any) -> list[dict[str, Any]]:
    await auth.denials.write()
    async with auth.db.system() as tx:
        found = await store.audit.list_oldest(tx, organization_id, AuditFilter(), after=None, limit=1_000)
    found = sorted((each for each in found if each.action.endswith(".deny")), key=lambda each: each.audit_entry_id)
    return [
        {
            "actor": each.actor,
            "action": each.action,
            "resource": each.resource,
            "address": each.address,
            "reason": each.details["reason"],
            "count": each.details["count"],
        }
        for each in found
    ]


async def test_parallel_guesses_get_no_further_than_guesses_one_by_one(
    auth: Any, acme: SeededOrganization, verified: list[str]
) -> None:
    reasons = await asyncio.gather(*(sign_in(auth, acme.email, WRONG, "203.0.113.9") for _ in range(150)))
    assert len(verified) == FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
    assert reasons.count("SIGN_IN_REFUSED") == FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
    assert reasons.count("SIGN_IN_THROTTLED") == 150 - FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX


async def test_the_right_person_gets_in_every_time_while_strangers_guess(
    auth: Any, acme: SeededOrganization, verified: list[str]
) -> None:
    async def guess(number: int) -> None:
        for _ in range(15):
            await sign_in(auth, acme.email, WRONG, f"198.51.100.{number}")

    guessing = asyncio.gather(*(guess(number) for number in range(40)))
    reasons = [await sign_in(auth, acme.email.upper(), PASSWORD, "192.0.2.1") for _ in range(40)]
    await guessing
    reasons.append(await sign_in(auth, acme.email, PASSWORD, "192.0.2.2"))
    assert reasons == [""] * 41
    assert verified.count(WRONG) <= 40 * FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX


@pytest.mark.parametrize(
    ("owner", "name", "failure", "reason"),
    [
        (passwords._Queue, "run", passwords.SignInBusy(retry_after_seconds=2.0), "SIGN_IN_BUSY"),
        (store.people, "find_by_email", DatabaseUnavailable(), "DATABASE_UNAVAILABLE"),
    ],
)
async def test_an_attempt_that_verified_nothing_is_not_counted(  # noqa: PLR0917 pytest names what a test stands on
    auth: Any,
    acme: SeededOrganization,
    verified: list[str],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    failure: Exception,
    reason: str,
) -> None:
    async def fail(*_values: Any, **_fields: Any) -> Any:
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(owner, name, fail)
        reasons = {await sign_in(auth, acme.email, PASSWORD, "192.0.2.1") for _ in range(30)}
    assert reasons == {reason}
    assert await sign_in(auth, acme.email, PASSWORD, "192.0.2.1") == ""


async def test_guesses_whose_callers_leave_are_counted(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifying, left = asyncio.Event(), asyncio.Event()

    async def verify_for_ever(*_values: Any) -> Any:
        verifying.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    with monkeypatch.context() as slow:
        slow.setattr(passwords._Queue, "run", verify_for_ever)
        for _ in range(FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX):
            verifying.clear()
            left.clear()
            guess = asyncio.create_task(sign_in(auth, acme.email, WRONG, "203.0.113.9"))
            await asyncio.wait_for(verifying.wait(), 60)
            guess.cancel()
            await asyncio.wait_for(left.wait(), 60)
    assert await sign_in(auth, acme.email, WRONG, "203.0.113.9") == "SIGN_IN_THROTTLED"


async def test_refused_sign_ins_are_in_the_audit_log_with_address_and_account(
    auth: Any, acme: SeededOrganization, verified: list[str]
) -> None:
    for _ in range(FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX + 3):
        await sign_in(auth, acme.email, WRONG, "203.0.113.9")
    await sign_in(auth, "nobody@acme.example", WRONG, "203.0.113.9")
    await sign_in(auth, "my secret pass phrase", WRONG, "203.0.113.9")
    common = {"actor": acme.email, "action": "session.deny", "resource": f"person/{acme.owner_id}"}
    where = {"address": "203.0.113.9"}
    assert await entries(auth, acme.organization_id) == [
        {**common, **where, "reason": "SIGN_IN_REFUSED", "count": FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX},
        {**common, **where, "reason": "SIGN_IN_THROTTLED", "count": 3},
    ]
    actors = [entry["actor"] for entry in await entries(auth, INSTALLATION)]
    assert actors == ["nobody@acme.example", "(not an e-mail address)"]


async def test_denied_calls_are_in_the_audit_log_of_the_callers_organization(
    auth: Any, acme: SeededOrganization
) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    member_id = await seed_person(auth.database.dsn("auth_system"), acme.organization_id, "m@acme.example", "member")
    member = auth.person(member_id, acme.organization_id, "member")
    for organization in (acme, other, other):
        with pytest.raises(grpc.aio.AioRpcError):
            await auth.stub.ListAuditEntries(
                pb.ListAuditEntriesRequest(organization_id=str(organization.organization_id)), metadata=member
            )
    found = await entries(auth, acme.organization_id)
    assert [(entry["actor"], entry["reason"], entry["count"]) for entry in found] == [
        (str(member_id), "ROLE_INSUFFICIENT", 1),
        (str(member_id), "ORGANIZATION_NOT_FOUND", 2),
    ]
    assert {(entry["resource"], entry["address"]) for entry in found} == {
        ("rpc/tollway.auth.v1.AuthService/ListAuditEntries", "ipv4:127.0.0.1")
    }
    assert await entries(auth, other.organization_id) == []


async def test_a_flood_of_denials_does_not_fill_the_audit_log(
    auth: Any, acme: SeededOrganization, verified: list[str]
) -> None:
    for number in range(denials.KINDS_MAX * 4):
        await sign_in(auth, f"{number}@acme.example", WRONG, f"203.0.{number}.1")
    found = await entries(auth, INSTALLATION)
    assert len(found) == denials.KINDS_MAX + 1
    assert found[-1]["actor"] == "others"
    assert sum(entry["count"] for entry in found) == denials.KINDS_MAX * 4


async def test_a_flood_from_one_address_does_not_hide_what_others_do(
    auth: Any, acme: SeededOrganization, verified: list[str]
) -> None:
    for number in range(denials.KINDS_MAX + 10):
        await sign_in(auth, f"{number}@acme.example", WRONG, "203.0.113.9")
    await sign_in(auth, acme.email, WRONG, "203.0.113.8")
    assert [entry["address"] for entry in await entries(auth, acme.organization_id)] == ["203.0.113.8"]
    flood = await entries(auth, INSTALLATION)
    assert {entry["address"] for entry in flood} == {"203.0.113.9"}
    assert len(flood) <= denials.KINDS_PER_SOURCE_MAX + 2
    assert sum(entry["count"] for entry in flood) == denials.KINDS_MAX + 10


def test_a_caller_that_is_denied_everywhere_is_named_in_its_organization(auth: Any, acme: SeededOrganization) -> None:
    for number in range(denials.KINDS_PER_SOURCE_MAX * 2):
        denial = denials.Denial(
            action=DENIED_CALL,
            source="somebody",
            actor="somebody",
            address="a",
            reason="R",
            resource=f"rpc/{number}",
            organization_id=acme.organization_id,
        )
        auth.denials.note(denial)
    kinds = {(each.actor, each.organization_id) for each in auth.denials._pending}
    assert kinds == {("somebody", acme.organization_id)}
    assert len(auth.denials._pending) == denials.KINDS_PER_SOURCE_MAX + 1


async def test_denials_are_kept_until_the_database_takes_them(
    auth: Any, acme: SeededOrganization, verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(auth, acme.email, WRONG, "203.0.113.9")

    async def fail(*_values: Any, **_fields: Any) -> None:
        raise asyncpg.PostgresError

    with monkeypatch.context() as broken:
        broken.setattr(store.audit, "append", fail)
        with pytest.raises(asyncpg.PostgresError):
            await auth.denials.write()
    assert [entry["count"] for entry in await entries(auth, acme.organization_id)] == [1]


async def test_denials_are_written_in_the_background_and_at_the_end(
    auth: Any, acme: SeededOrganization, verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denials, "DELAY_SECONDS", 0.0)
    stopping = asyncio.Event()
    running = asyncio.create_task(auth.denials.run(stopping))
    await sign_in(auth, acme.email, WRONG, "203.0.113.9")
    async with asyncio.timeout(60):
        while auth.denials._pending:
            await asyncio.sleep(0.005)
    await sign_in(auth, acme.email, WRONG, "203.0.113.8")
    stopping.set()
    await running
    assert [entry["address"] for entry in await entries(auth, acme.organization_id)] == ["203.0.113.9", "203.0.113.8"]
