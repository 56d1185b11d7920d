"""Registering: a mailbox and the password of the registration make an account, and nothing else does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.clock import ManualClock
from mesh.jobs.queue import to_job
from mesh.rpc.call import NOBODY, current_call
from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import from_grpc
from services.auth import account_mail, email_requests, passwords, registrations, store
from services.auth.throttle import FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
from tests.support.accounts import DASHBOARD_URL, PASSWORD, SeededOrganization, seed_organization
from tests.support.mail_room import MailRoom
from tests.support.processes import process_tokens

EMAIL = "ada@example.com"
OTHER_PASSWORD = "a stranger's own pass phrase"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"))


@pytest.fixture
def mail_room(auth: Any) -> MailRoom:
    return MailRoom(auth.db)


def from_address(address: str) -> Any:
    return vouched_address(process_tokens("graphql_gateway"), address, "auth")


async def register(auth: Any, *, address: str = "192.0.2.1", **fields: str) -> None:
    request = {"email": EMAIL, "password": PASSWORD, "name": "Ada", "organization_name": "Analytical Engines", **fields}
    await auth.stub.Register(pb.RegisterRequest(**request), metadata=from_address(address))


async def verify(auth: Any, token: str, password: str = PASSWORD, address: str = "192.0.2.1") -> pb.VerifyEmailResponse:
    request = pb.VerifyEmailRequest(token=token, password=password)
    answer: pb.VerifyEmailResponse = await auth.stub.VerifyEmail(request, metadata=from_address(address))
    return answer


async def ask_again(auth: Any, email: str = EMAIL, address: str = "192.0.2.1") -> None:
    request = pb.RequestEmailVerificationRequest(email=email)
    await auth.stub.RequestEmailVerification(request, metadata=from_address(address))


async def refusal(call: Any) -> str:
    """Returns the reason why a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_grpc(caught.value).reason


async def count(auth: Any, table: str) -> int:
    async with auth.db.system() as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_registration_ends_with_a_person_who_owns_an_organization(auth: Any, mail_room: MailRoom) -> None:
    await register(auth, email=" Ada@Example.COM ", currency_code="EUR", time_zone="Europe/Berlin")
    assert await count(auth, "people") == await count(auth, "organizations") == 0
    letter = await mail_room.letter()
    assert (letter.template, letter.recipient) == ("verify_email", EMAIL)
    assert letter.facts["link"] == f"{DASHBOARD_URL}/verify-email"
    made = await verify(auth, letter.token)
    session = await auth.stub.CreateSession(pb.CreateSessionRequest(email=EMAIL, password=PASSWORD))
    assert (session.person_id, session.organization_id) == (made.person_id, made.organization_id)
    assert session.role == access_pb2.ROLE_OWNER
    signed_in = [("authorization", f"Bearer {session.access_token}")]
    me = await auth.stub.GetMe(pb.GetMeRequest(), metadata=signed_in)
    assert (me.person.email, me.person.name, me.person.second_factor) == (EMAIL, "Ada", False)
    assert [each.organization_name for each in me.person.memberships] == ["Analytical Engines"]
    organization = await auth.stub.GetOrganization(
        pb.GetOrganizationRequest(organization_id=made.organization_id), metadata=signed_in
    )
    assert (organization.contact_email, organization.billing_email) == (EMAIL, EMAIL)
    assert (organization.currency_code, organization.time_zone) == ("EUR", "Europe/Berlin")
    entries = await auth.stub.ListAuditEntries(
        pb.ListAuditEntriesRequest(organization_id=made.organization_id), metadata=signed_in
    )
    assert {entry.action for entry in entries.audit_entries} >= {"person.register", "organization.create"}
    assert {entry.actor for entry in entries.audit_entries} == {made.person_id}


async def test_a_token_is_good_once(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    token = (await mail_room.letter()).token
    await verify(auth, token)
    assert await refusal(verify(auth, token)) == "EMAIL_TOKEN_INVALID"


async def test_of_two_who_end_one_registration_at_once_one_does(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    token = (await mail_room.letter()).token
    outcomes = await asyncio.gather(*(verify(auth, token) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(outcome, pb.VerifyEmailResponse) for outcome in outcomes) == 1
    assert await count(auth, "people") == await count(auth, "organizations") == await count(auth, "memberships") == 1


async def test_nobody_verifies_an_account_that_a_stranger_began_in_their_name(auth: Any, mail_room: MailRoom) -> None:
    """Pre-hijacking: the stranger registers the victim's address with a password of their own and waits."""
    await register(auth, password=OTHER_PASSWORD, address="203.0.113.9")
    strangers = await mail_room.letter()
    await register(auth)
    own = await mail_room.letter()
    # The victim opens whatever e-mail they find and types their own password.
    assert await refusal(verify(auth, strangers.token)) == "PASSWORD_WRONG"
    await verify(auth, own.token)
    assert await refusal(verify(auth, strangers.token, OTHER_PASSWORD)) == "EMAIL_TOKEN_INVALID"
    assert (
        await refusal(auth.stub.CreateSession(pb.CreateSessionRequest(email=EMAIL, password=OTHER_PASSWORD)))
        == "SIGN_IN_REFUSED"
    )
    await auth.stub.CreateSession(pb.CreateSessionRequest(email=EMAIL, password=PASSWORD))


async def test_a_wrong_password_leaves_the_token_good_and_is_throttled(
    auth: Any, mail_room: MailRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(auth)
    token = (await mail_room.letter()).token
    monkeypatch.setattr(passwords, "_verify", lambda _hash, password: password == PASSWORD)
    guesses = [await refusal(verify(auth, token, f"guess {number}")) for number in range(20)]
    assert guesses.count("PASSWORD_WRONG") == FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
    assert guesses[-1] == "SIGN_IN_THROTTLED"
    # Nobody is kept out who comes from elsewhere.
    await verify(auth, token, address="198.51.100.7")


async def test_a_token_ends_after_a_day_and_can_be_asked_for_again(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    old = await mail_room.letter()
    async with auth.db.system() as tx:
        await tx.execute("UPDATE registrations SET expire_time = now()")
    assert await refusal(verify(auth, old.token)) == "EMAIL_TOKEN_INVALID"
    await ask_again(auth)
    new = await mail_room.letter()
    async with auth.db.system() as tx:
        good = await tx.fetchval("SELECT max(expire_time - mail_time) FROM registrations")
    assert good == timedelta(hours=24) == account_mail.VERIFICATION_GOOD
    await verify(auth, new.token)


async def test_the_first_email_stays_good_when_another_is_asked_for(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    first = await mail_room.letter()
    await ask_again(auth)
    assert (await mail_room.letter()).token != first.token
    await verify(auth, first.token)
    assert await count(auth, "registrations") == 0


async def test_a_known_address_is_answered_alike_and_told_that_it_has_an_account(
    auth: Any, mail_room: MailRoom
) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    await register(auth, email=owner.email)
    letter = await mail_room.letter()
    assert (letter.template, letter.recipient) == ("already_registered", owner.email)
    assert set(letter.facts) == {"link"}
    # Neither way to a token: it was not sent, and asking again does not send it.
    await ask_again(auth, owner.email)
    assert [each.template for each in await mail_room.letters()] == ["already_registered"]
    assert await count(auth, "people") == 1


async def test_what_is_done_before_the_answer_does_not_depend_on_the_account(
    auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    work: list[str] = []
    real_hash, connection = passwords.hash_password, type(auth.db)

    def counted_hash(password: str) -> str:
        work.append("argon2")
        return real_hash(password)

    system = connection.system

    def watched(self: Any) -> Any:
        # What runs in the background is no call's.
        return system(self) if current_call() is NOBODY else _Watched(system(self), work)

    monkeypatch.setattr(passwords, "hash_password", counted_hash)
    monkeypatch.setattr(connection, "system", watched)

    async def work_of(call: Any) -> list[str]:
        work.clear()
        await call
        return list(work)

    for ask in (lambda email: register(auth, email=email), lambda email: ask_again(auth, email)):
        known, unknown = await work_of(ask(owner.email)), await work_of(ask("nobody@acme.example"))
        assert known == unknown
        assert len(known) > 0
    assert "argon2" in await work_of(register(auth, email="nobody2@acme.example"))


class _Watched:
    """A transaction whose statements are noted."""

    def __init__(self, transaction: Any, work: list[str]) -> None:
        self._transaction, self._work = transaction, work

    async def __aenter__(self) -> Any:
        connection, work = await self._transaction.__aenter__(), self._work

        class Noting:
            def __getattr__(self, name: str) -> Any:
                def run(statement: str, *values: Any) -> Any:
                    work.append(statement)
                    return getattr(connection, name)(statement, *values)

                return run

        return Noting()

    async def __aexit__(self, *error: object) -> Any:
        return await self._transaction.__aexit__(*error)


async def test_a_contact_that_somebody_else_named_keeps_nobody_from_registering(auth: Any, mail_room: MailRoom) -> None:
    squatter = await seed_organization(auth.database.dsn("auth_system"))
    async with auth.db.system() as tx:
        await tx.execute(
            "UPDATE organizations SET contact_email = $2 WHERE organization_id = $1", squatter.organization_id, EMAIL
        )
    await register(auth)
    made = await verify(auth, (await mail_room.letter()).token)
    owner = auth.person(UUID(made.person_id), UUID(made.organization_id))
    organization = await auth.stub.GetOrganization(
        pb.GetOrganizationRequest(organization_id=made.organization_id), metadata=owner
    )
    assert (organization.contact_email, organization.billing_email) == ("", EMAIL)
    # It is written to through its owner, as the tenant's own role finds out.
    async with auth.db.tenant(UUID(made.organization_id)) as tx:
        assert await store.organizations.find_contact(tx, UUID(made.organization_id)) == EMAIL


async def test_an_account_that_came_first_wins(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    token = (await mail_room.letter()).token
    async with auth.db.system() as tx:
        await tx.execute(
            "INSERT INTO people (person_id, email, create_time) VALUES (gen_random_uuid(), $1, now())", EMAIL
        )
    assert await refusal(verify(auth, token)) == "ACCOUNT_EXISTS"
    assert await count(auth, "organizations") == 0


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"email": "ada"}, "email"),
        ({"password": "1234567"}, "password"),
        ({"password": "x" * 201}, "password"),
        ({"password": "Password1"}, "password"),
        ({"password": EMAIL}, "password"),
        ({"name": ""}, "name"),
        ({"name": "Ada\nBcc: x"}, "name"),
        ({"organization_name": ""}, "organization_name"),
        ({"currency_code": "XXX"}, "currency_code"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
    ],
)
async def test_a_wrong_field_is_named(auth: Any, fields: dict[str, str], wrong: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(auth, **fields)
    assert [each.field for each in from_grpc(caught.value).violations] == [wrong]


async def test_e_mails_are_asked_for_a_few_times_only(auth: Any) -> None:
    for _ in range(email_requests.PER_EMAIL_AND_NETWORK_MAX):
        await ask_again(auth)
    assert await refusal(ask_again(auth)) == "EMAIL_REQUESTS_THROTTLED"
    # The owner of the address is somewhere else, and not kept from asking.
    await ask_again(auth, address="198.51.100.7")
    # One network asks for so many addresses, and for no more.
    for number in range(email_requests.PER_NETWORK_MAX - email_requests.PER_EMAIL_AND_NETWORK_MAX):
        await ask_again(auth, f"{number}@example.com")
    assert await refusal(ask_again(auth, "another@example.com")) == "EMAIL_REQUESTS_THROTTLED"


async def test_a_mailbox_is_not_flooded_from_everywhere(
    auth: Any, mail_room: MailRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_mail, "REGISTRATION_MAILS_PER_HOUR_MAX", 3)
    await register(auth)
    letters = await mail_room.letters()
    for number in range(10):
        await ask_again(auth, address=f"203.0.113.{number}")
        letters += await mail_room.letters()
    assert len(letters) == 3
    # What was sent is still good.
    await verify(auth, letters[0].token)
    for number in range(10):
        await ask_again(auth, address=f"203.0.113.{number}")
    # Now the address has an account, and there is no registration to repeat.
    assert await mail_room.letters() == []


async def test_a_job_that_runs_twice_writes_one_e_mail(auth: Any, mail_room: MailRoom) -> None:
    await register(auth)
    await ask_again(auth)
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT job_id, kind, organization_id, payload, attempt_count, trace_context FROM jobs")
    handlers = mail_room.account_mail.handlers()
    for _ in range(2):
        for row in rows:
            await handlers[row["kind"]](to_job(row))
    async with auth.db.system() as tx:
        await tx.execute("UPDATE jobs SET state = 'done', finish_time = now() WHERE kind <> 'send_email'")
    assert [letter.template for letter in await mail_room.letters()] == ["verify_email"] * 2


async def test_old_registrations_go(auth: Any) -> None:
    await register(auth)
    for days, left in ((6, 1), (8, 0)):
        clock = ManualClock(datetime.now(UTC) + timedelta(days=days))
        await registrations.remove_old(auth.db, clock)
        assert await count(auth, "registrations") == left


async def test_people_change_their_name(auth: Any, acme: SeededOrganization) -> None:
    owner = auth.person(acme.owner_id, acme.organization_id)
    person = await auth.stub.UpdateProfile(pb.UpdateProfileRequest(name="Grace"), metadata=owner)
    assert (person.name, person.email) == ("Grace", acme.email)
    assert (await auth.stub.GetMe(pb.GetMeRequest(), metadata=owner)).person.name == "Grace"
    assert (
        await refusal(auth.stub.UpdateProfile(pb.UpdateProfileRequest(name="\0"), metadata=owner)) == "INVALID_FIELDS"
    )
