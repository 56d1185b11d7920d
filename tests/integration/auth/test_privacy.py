"""People take what is stored about them along, and have it erased: nothing of them is left but their id."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh import jobs
from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.rpc.errors import ReceivedError, from_grpc
from mesh.secretbox import SecretBox
from services.auth import audit, store
from services.auth.erasure import ERASE_ADDRESS, AddressEraser
from services.auth.model import AuditFilter
from services.notification.erasure import Erasure
from tests.support.accounts import DATA_KEY, PASSWORD, SeededOrganization, seed_organization, seed_person

EMAIL = "zz-marker@acme.example"
OTHER_EMAIL = "zz-other@acme.example"
NAME = "Zz Marker"
TRACES = ["zz-marker", "zz-other", "zz marker"]
BROWSER = "zz-browser"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def person_id(auth: Any, acme: SeededOrganization) -> UUID:
    """A second owner of acme."""
    person_id = await seed_person(auth.database.dsn("auth_system"), acme.organization_id, EMAIL, "owner")
    async with auth.db.system() as tx:
        await tx.execute("UPDATE people SET name = $2 WHERE person_id = $1", person_id, NAME)
    return person_id


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def is_refused(call: Any) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


async def sign_in(auth: Any, email: str = EMAIL, password: str = PASSWORD) -> Any:
    request = pb.CreateSessionRequest(email=email, password=password)
    return await auth.stub.CreateSession(request)


def bearer(session: Any) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {session.access_token}")]


def operator(auth: Any, organization_id: UUID) -> list[tuple[str, str]]:
    token, _ = auth.signer.issue(
        person_id=uuid4(),
        organization_id=organization_id,
        role="owner",
        platform_roles=["admin"],
        membership_version=2**53 - 1,
    )
    return [("authorization", f"Bearer {token}")]


async def leave_traces(auth: Any, acme: SeededOrganization, person_id: UUID) -> Any:
    """Does whatever stores something about a person, and returns their session."""
    async with auth.db.system() as tx:
        await tx.execute("INSERT INTO platform_roles VALUES ($1, 'platform_support', now())", person_id)
    for wrong in ("wrong", "wrong again"):
        await refusal(sign_in(auth, password=wrong))
    await auth.denials.write()
    session = await sign_in(auth)
    await auth.stub.UpdateProfile(pb.UpdateProfileRequest(name=NAME), metadata=bearer(session))
    change = pb.RequestEmailChangeRequest(new_email=OTHER_EMAIL, password=PASSWORD)
    await auth.stub.RequestEmailChange(change, metadata=bearer(session))
    await auth.stub.RequestPasswordReset(pb.RequestPasswordResetRequest(email=EMAIL))
    register = pb.RegisterRequest(email=EMAIL, password=PASSWORD, name=NAME, organization_name=NAME)
    await auth.stub.Register(register)
    await auth.stub.BeginTotpEnrollment(pb.BeginTotpEnrollmentRequest(password=PASSWORD), metadata=bearer(session))
    key = pb.CreateApiKeyRequest(organization_id=str(acme.organization_id), name="a key", idempotency_key="k")
    await auth.stub.CreateApiKey(key, metadata=bearer(session))
    async with auth.db.system() as tx:
        await tx.execute(
            "UPDATE organizations SET contact_email = $2, billing_email = $2 WHERE organization_id = $1",
            acme.organization_id,
            EMAIL,
        )
        # A gRPC client says itself what it is called.
        await tx.execute("UPDATE sessions SET user_agent = $2 WHERE person_id = $1", person_id, BROWSER)
        log = audit.AuditLog(clock=SystemClock(), ids=RandomIds())
        await log.note(
            tx,
            organization_id=acme.organization_id,
            action="member.invite",
            resource="invitation/1",
            after={"email": EMAIL.upper()},
            details={"reason": f"asked by {EMAIL}, for ann@acme.example"},
        )
        before = {"name": NAME, "email": OTHER_EMAIL}
        resource = f"person/{person_id}"
        await log.note(tx, organization_id=None, action="person.rename", resource=resource, before=before)
        await jobs.enqueue(tx, "send_email", {"recipient": EMAIL}, job_id=uuid4(), organization_id=acme.organization_id)
    return session


async def leave_emails(database: Any) -> None:
    connection = await asyncpg.connect(database.dsn("notification_system"))
    owner = await asyncpg.connect(database.dsn("admin"))
    for recipient in (EMAIL, EMAIL.title(), "ann@acme.example"):
        email_id = uuid4()
        await owner.execute(
            "INSERT INTO notification.emails (organization_id, email_id, recipient, template, state, end_time,"
            " last_error, create_time) VALUES ($1, $2, $3, 't', 'dead', now(), '550 ' || $3, now())",
            uuid4(),
            email_id,
            recipient,
        )
        await connection.execute(
            "INSERT INTO jobs (job_id, kind, payload, run_time, state, finish_time, last_error)"
            " VALUES ($1, 'deliver_email', jsonb_build_object('email_id', $2::text), now(), 'dead', now(), $3)",
            uuid4(),
            str(email_id),
            f"550 {recipient}",
        )
    await connection.close()
    await owner.close()


async def run_erase_jobs(auth: Any, database: Any) -> int:
    """Runs the jobs that removing an address left, the later ones included."""
    notification = await Database.connect(
        tenant_dsn=database.dsn("notification"),
        system_dsn=database.dsn("notification_system"),
        name="n",
        pool_size_max=2,
    )
    eraser = AddressEraser(
        db=auth.db, erase_recipient=Erasure(notification).erase_recipient, box=SecretBox({1: DATA_KEY})
    )
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT job_id, kind, organization_id, payload FROM jobs WHERE kind = $1 ORDER BY run_time", ERASE_ADDRESS
        )
    for row in rows:
        assert EMAIL not in row["payload"]
        await eraser.erase_address(jobs.Job(**{**row, "payload": json.loads(row["payload"])}, attempt_count=1))
    await notification.close()
    return len(rows)


async def traces(database: Any, wanted: list[str]) -> dict[str, str]:
    """Returns every row of auth and notification in which something stands, whatever the column, bytes included."""
    admin = await asyncpg.connect(database.dsn("admin"))
    found = {}
    tables = await admin.fetch(
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('auth', 'notification') AND c.relkind = 'r'"
    )
    assert len(tables) > 15
    patterns = [f"%{text}%" for text in (*wanted, *(text.encode().hex() for text in wanted))]
    for table in tables:
        rows = await admin.fetch(
            f"SELECT t::text AS row FROM {table['name']} AS t WHERE t::text ILIKE ANY($1)", patterns
        )
        if rows:
            found[table["name"]] = rows[0]["row"]
    await admin.close()
    return found


async def test_nothing_of_an_erased_person_is_left_anywhere(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    session = await leave_traces(auth, acme, person_id)
    await leave_emails(auth.database)
    before = await traces(auth.database, TRACES)
    assert set(before) >= {
        "auth.people",
        "auth.registrations",
        "auth.organizations",
        "auth.audit_personal_values",
        "auth.jobs",
        "notification.emails",
        "notification.jobs",
    }
    assert "auth.audit_entries" not in before
    assert "auth.sessions" in await traces(auth.database, [BROWSER])
    request = pb.EraseMeRequest(password=PASSWORD)
    await auth.stub.EraseMe(request, metadata=bearer(session))
    assert set(await traces(auth.database, TRACES)) <= {"notification.emails", "notification.jobs"}
    assert await run_erase_jobs(auth, auth.database) == 4
    assert await traces(auth.database, [*TRACES, BROWSER]) == {}
    assert set(await traces(auth.database, ["ann@acme.example"])) == {
        "auth.audit_personal_values",
        "notification.emails",
        "notification.jobs",
    }
    async with auth.db.system() as tx:
        entries = await store.audit.list_oldest(tx, acme.organization_id, AuditFilter(), after=None, limit=100)
        organization = await tx.fetchrow("SELECT contact_email, billing_email FROM organizations")
        assert await tx.fetchval("SELECT count(*) FROM people WHERE person_id = $1", person_id) == 1
    shown = {each.action: each for each in entries}
    assert shown["member.invite"].after == {"email": "(erased)"}
    assert shown["member.invite"].details == {"reason": "asked by (erased), for ann@acme.example"}
    assert shown["session.deny"].actor == "(erased)"
    assert (shown["person.erase"].actor, shown["person.erase"].resource) == (str(person_id), f"person/{person_id}")
    assert (organization["contact_email"], organization["billing_email"]) == (None, acme.email)


async def test_an_erased_person_is_out_within_a_second_and_the_address_is_free(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    session, other = await sign_in(auth), await sign_in(auth)
    await auth.stub.EraseMe(pb.EraseMeRequest(password=PASSWORD), metadata=bearer(session))
    async with asyncio.timeout(1):
        while not await is_refused(auth.stub.ListSessions(pb.ListSessionsRequest(), metadata=bearer(other))):
            await asyncio.sleep(0.01)
    refused = await refusal(auth.stub.RefreshSession(pb.RefreshSessionRequest(refresh_token=other.refresh_token)))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert (await refusal(sign_in(auth))).reason == "SIGN_IN_REFUSED"
    again = await seed_person(auth.database.dsn("auth_system"), acme.organization_id, EMAIL, "member")
    assert again != person_id


async def test_what_comes_later_to_remove_an_address_leaves_its_new_owner_alone(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    session = await sign_in(auth)
    await auth.stub.EraseMe(pb.EraseMeRequest(password=PASSWORD), metadata=bearer(session))
    again = await seed_person(auth.database.dsn("auth_system"), acme.organization_id, EMAIL, "member")
    await leave_emails(auth.database)
    await run_erase_jobs(auth, auth.database)
    assert UUID((await sign_in(auth)).person_id) == again
    assert "notification.emails" in await traces(auth.database, TRACES)


async def test_only_who_proves_to_be_the_person_erases_them(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    session = await sign_in(auth)
    wrong = await refusal(auth.stub.EraseMe(pb.EraseMeRequest(password="wrong"), metadata=bearer(session)))
    assert wrong.reason == "PASSWORD_WRONG"
    async with auth.db.system() as tx:
        await tx.execute(
            "INSERT INTO second_factors (person_id, data_key_version, secret, failure_time, create_time, confirm_time)"
            " VALUES ($1, 1, 'x', now(), now(), now())",
            person_id,
        )
    without = await refusal(auth.stub.EraseMe(pb.EraseMeRequest(password=PASSWORD), metadata=bearer(session)))
    assert without.reason == "SECOND_FACTOR_REQUIRED"
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT email FROM people WHERE person_id = $1", person_id) == EMAIL


async def test_the_last_owner_of_an_organization_stays_however_many_ask_at_once(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    admin = operator(auth, acme.organization_id)
    requests = [
        pb.ErasePersonRequest(person_id=str(each), reason="asked in writing", idempotency_key=str(each))
        for each in (person_id, acme.owner_id)
    ]
    answers = await asyncio.gather(
        *(auth.stub.ErasePerson(each, metadata=admin) for each in requests), return_exceptions=True
    )
    (refused,) = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    received = from_grpc(refused)
    assert (received.code, received.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOLE_OWNER")
    assert received.metadata["organization_ids"] == str(acme.organization_id)
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM memberships WHERE role = 'owner'") == 1


async def test_operators_erase_with_a_reason_once_and_it_is_audited(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    admin = operator(auth, acme.organization_id)
    request = pb.ErasePersonRequest(person_id=str(person_id), reason=f"{EMAIL} asked", idempotency_key="e")
    await auth.stub.ErasePerson(request, metadata=admin)
    await auth.stub.ErasePerson(request, metadata=admin)
    assert await traces(auth.database, TRACES) == {}
    request.idempotency_key = "f"
    gone = await refusal(auth.stub.ErasePerson(request, metadata=admin))
    assert gone.reason == "PERSON_NOT_FOUND"
    unknown = pb.ErasePersonRequest(person_id=str(uuid4()), reason="x")
    assert await refusal(auth.stub.ErasePerson(unknown, metadata=admin)) == gone
    for field, wrong in (("person_id", {"person_id": "x", "reason": "x"}), ("reason", {"person_id": str(uuid4())})):
        received = await refusal(auth.stub.ErasePerson(pb.ErasePersonRequest(**wrong), metadata=admin))
        assert [violation.field for violation in received.violations] == [field]
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT organization_id, details ->> 'reason' AS reason FROM audit_entries WHERE action = 'person.erase'"
        )
    assert {row["organization_id"] for row in rows} == {acme.organization_id, audit.INSTALLATION}
    assert {row["reason"] for row in rows} == {"(personal 1) asked"}


async def test_an_export_has_everything_about_the_person_and_nothing_that_is_secret_or_anothers(
    auth: Any, acme: SeededOrganization, person_id: UUID
) -> None:
    session = await leave_traces(auth, acme, person_id)
    async with auth.db.system() as tx:
        log = audit.AuditLog(clock=SystemClock(), ids=RandomIds())
        await log.note(
            tx,
            organization_id=acme.organization_id,
            action="member.invite",
            resource="invitation/2",
            actor=person_id,
            after={"email": "ann@acme.example"},
        )
        secret = await tx.fetchval("SELECT password_hash FROM people WHERE person_id = $1", person_id)
    text = (await auth.stub.ExportMe(pb.ExportMeRequest(), metadata=bearer(session))).export_json
    document = json.loads(text)
    assert (document["person"]["email"], document["person"]["name"]) == (EMAIL, NAME)
    for section in ("platform_roles", "memberships", "second_factor", "sessions", "registrations", "api_keys"):
        assert document[section], section
    assert document["sessions"][0]["user_agent"] == BROWSER
    by_action = {each["action"]: each for each in document["audit_entries"]}
    assert by_action["person.rename"]["before"] == {"name": NAME, "email": OTHER_EMAIL}
    assert by_action["member.invite"]["after"] == {"email": "(withheld)"}
    assert document["truncated"] == []
    assert secret not in text
    assert "digest" not in text
    assert "ann@" not in text
    of = pb.ExportPersonRequest(person_id=str(person_id))
    by_operator = await auth.stub.ExportPerson(of, metadata=operator(auth, acme.organization_id))
    assert json.loads(by_operator.export_json)["person"] == document["person"]
    async with auth.db.system() as tx:
        noted = await tx.fetch("SELECT organization_id, resource FROM audit_entries WHERE action = 'person.export'")
    assert [tuple(row) for row in noted] == [(audit.INSTALLATION, f"person/{person_id}")]
    assert (await refusal(auth.stub.ExportPerson(of, metadata=bearer(session)))).reason == "ROLE_INSUFFICIENT"


async def test_an_erased_person_stays_erased_whoever_asks(auth: Any, acme: SeededOrganization, person_id: UUID) -> None:
    session = await sign_in(auth)
    await auth.stub.EraseMe(pb.EraseMeRequest(password=PASSWORD), metadata=bearer(session))
    for role in ("auth_system", "admin"):
        connection = await asyncpg.connect(auth.database.dsn(role))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays erased"):
            await connection.execute("UPDATE auth.people SET name = 'x' WHERE person_id = $1", person_id)
        await connection.close()
