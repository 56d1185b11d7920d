"""Passwords and addresses: tokens are good once and for one state of the account; changes end sessions and are told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.clock import ManualClock
from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import from_grpc
from services.auth import account_mail, credentials, passwords
from services.auth.throttle import FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
from tests.support.accounts import DASHBOARD_URL, PASSWORD, SeededOrganization, seed_organization, seed_person
from tests.support.mail_room import MailRoom
from tests.support.processes import process_tokens

NEW_PASSWORD = "another pass phrase altogether"
NEW_EMAIL = "ada@new.example"
ERASE = "UPDATE people SET erase_time = now(), email = NULL, name = '', password_hash = NULL"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"))


@pytest.fixture
def mail_room(auth: Any) -> MailRoom:
    return MailRoom(auth.db)


async def refusal(call: Any) -> str:
    """Returns the reason why a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_grpc(caught.value).reason


async def sign_in(auth: Any, email: str, password: str = PASSWORD) -> Any:
    return await auth.stub.CreateSession(pb.CreateSessionRequest(email=email, password=password))


def bearer(session: Any) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {session.access_token}")]


async def is_alive(auth: Any, session: Any) -> bool:
    try:
        await auth.stub.RefreshSession(pb.RefreshSessionRequest(refresh_token=session.refresh_token))
    except grpc.aio.AioRpcError:
        return False
    return True


async def ask_reset(auth: Any, email: str, address: str = "192.0.2.1") -> None:
    metadata = vouched_address(process_tokens("graphql_gateway"), address, "auth")
    await auth.stub.RequestPasswordReset(pb.RequestPasswordResetRequest(email=email), metadata=metadata)


async def reset(auth: Any, token: str, password: str = NEW_PASSWORD) -> None:
    await auth.stub.ResetPassword(pb.ResetPasswordRequest(token=token, new_password=password))


async def actions(auth: Any, organization_id: Any) -> list[str]:
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT action FROM audit_entries WHERE organization_id = $1 AND action LIKE 'person.%' ORDER BY 1",
            organization_id,
        )
    return [row["action"] for row in rows]


async def test_a_reset_sets_the_password_ends_every_session_and_is_told(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    async with auth.db.system() as tx:
        await tx.execute(
            "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, 'member', now())",
            other.organization_id,
            acme.owner_id,
        )
    sessions = [await sign_in(auth, acme.email) for _ in range(2)]
    await ask_reset(auth, f" {acme.email.upper()} ")
    letter = await mail_room.letter()
    assert (letter.template, letter.recipient) == ("password_reset", acme.email)
    assert letter.facts["link"] == f"{DASHBOARD_URL}/reset-password"
    await reset(auth, letter.token)
    assert [await is_alive(auth, session) for session in sessions] == [False, False]
    assert await refusal(sign_in(auth, acme.email)) == "SIGN_IN_REFUSED"
    await sign_in(auth, acme.email, NEW_PASSWORD)
    told = await mail_room.letter()
    assert (told.template, told.recipient) == ("password_changed", acme.email)
    for organization in (acme, other):
        assert await actions(auth, organization.organization_id) == ["person.password_reset"]
    assert await refusal(reset(auth, letter.token, "yet another pass phrase")) == "EMAIL_TOKEN_INVALID"


async def test_an_unknown_address_is_answered_alike_and_gets_nothing(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    async with auth.db.system() as tx:
        await tx.execute("DELETE FROM jobs")
    for email in (acme.email, "nobody@acme.example"):
        await ask_reset(auth, email)
    async with auth.db.system() as tx:
        shapes = await tx.fetch(
            "SELECT kind, organization_id,"
            " (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(payload) AS k) AS keys FROM jobs"
        )
    # All that an answer waits for is one job, and nothing of it depends on the account.
    assert len(shapes) == 2
    assert len(set(map(str, shapes))) == 1
    assert [letter.recipient for letter in await mail_room.letters()] == [acme.email]


async def test_of_two_who_use_one_token_at_once_one_does(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    await ask_reset(auth, acme.email)
    token = (await mail_room.letter()).token
    outcomes = await asyncio.gather(
        *(reset(auth, token, f"{NEW_PASSWORD} {number}") for number in range(3)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1


@pytest.mark.parametrize("change", ["password", "email", "another reset", "time", "erased"])
async def test_a_reset_token_dies_when_the_account_changes(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom, change: str
) -> None:
    await ask_reset(auth, acme.email)
    await ask_reset(auth, acme.email)
    first, second = [letter.token for letter in await mail_room.letters()]
    session = bearer(await sign_in(auth, acme.email))
    if change == "password":
        request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW_PASSWORD)
        await auth.stub.ChangePassword(request, metadata=session)
    elif change == "email":
        await change_email(auth, session, mail_room)
    elif change == "another reset":
        await reset(auth, second)
    else:
        statement = {
            "time": "UPDATE password_resets SET expire_time = now()",
            "erased": ERASE,
        }[change]
        async with auth.db.system() as tx:
            await tx.execute(statement)
    assert await refusal(reset(auth, first, "yet another pass phrase")) == "EMAIL_TOKEN_INVALID"


async def test_a_token_is_void_for_another_version_of_the_account_even_where_its_row_is_left(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    await ask_reset(auth, acme.email)
    token = (await mail_room.letter()).token
    async with auth.db.system() as tx:
        await tx.execute("UPDATE people SET credential_version = credential_version + 1")
    assert await refusal(reset(auth, token)) == "EMAIL_TOKEN_INVALID"


async def test_tokens_of_before_are_removed_with_a_new_password(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    for _ in range(2):
        await ask_reset(auth, acme.email)
    first, _ = await mail_room.letters()
    await reset(auth, first.token)
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT count(*) FROM password_resets") == 0


async def test_reset_tokens_last_an_hour(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    await ask_reset(auth, acme.email)
    await mail_room.letter()
    async with auth.db.system() as tx:
        assert await tx.fetchval("SELECT expire_time - create_time FROM password_resets") == timedelta(hours=1)


async def test_a_mailbox_gets_few_resets_and_they_stay_good(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    for number in range(account_mail.RESET_MAILS_PER_HOUR_MAX + 5):
        await ask_reset(auth, acme.email, f"203.0.113.{number}")
    letters = await mail_room.letters()
    assert len(letters) == account_mail.RESET_MAILS_PER_HOUR_MAX
    await reset(auth, letters[0].token)


async def test_a_token_of_one_purpose_is_none_of_another(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    await ask_reset(auth, acme.email)
    token = (await mail_room.letter()).token
    request = pb.VerifyEmailRequest(token=token, password=PASSWORD)
    assert await refusal(auth.stub.VerifyEmail(request)) == "EMAIL_TOKEN_INVALID"
    assert await refusal(reset(auth, "A" * 43)) == "EMAIL_TOKEN_INVALID"
    assert await refusal(reset(auth, token[:-1])) == "EMAIL_TOKEN_INVALID"


@pytest.mark.parametrize("password", ["password1", "owner123", "x" * 7])
async def test_a_new_password_is_held_to_the_rules(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom, password: str
) -> None:
    await ask_reset(auth, acme.email)
    token = (await mail_room.letter()).token
    request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
    session = bearer(await sign_in(auth, acme.email))
    for call in (reset(auth, token, password), auth.stub.ChangePassword(request, metadata=session)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert [violation.field for violation in from_grpc(caught.value).violations] == ["new_password"]
    await reset(auth, token)


async def test_changing_the_password_ends_every_other_session(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    mine, other = await sign_in(auth, acme.email), await sign_in(auth, acme.email)
    request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW_PASSWORD)
    await auth.stub.ChangePassword(request, metadata=bearer(mine))
    assert [await is_alive(auth, mine), await is_alive(auth, other)] == [True, False]
    assert (await mail_room.letter()).template == "password_changed"
    assert await actions(auth, acme.organization_id) == ["person.password_change"]
    assert await refusal(sign_in(auth, acme.email)) == "SIGN_IN_REFUSED"
    await sign_in(auth, acme.email, NEW_PASSWORD)


async def test_a_stolen_session_is_no_second_way_to_guess_the_password(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bearer(await sign_in(auth, acme.email))
    monkeypatch.setattr(passwords, "_verify", lambda _hash, password: password == PASSWORD)
    change = pb.ChangePasswordRequest(current_password="a wrong one", new_password=NEW_PASSWORD)
    move = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password="a wrong one")
    reasons = []
    for _ in range(FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX):
        reasons.append(await refusal(auth.stub.ChangePassword(change, metadata=session)))
        reasons.append(await refusal(auth.stub.RequestEmailChange(move, metadata=session)))
    assert reasons.count("PASSWORD_WRONG") == FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
    assert set(reasons) == {"PASSWORD_WRONG", "SIGN_IN_THROTTLED"}
    # One budget for all ways: signing in from there is out of it, too.
    assert await refusal(sign_in(auth, acme.email)) == "SIGN_IN_THROTTLED"


async def test_a_sign_in_that_is_under_way_does_not_survive_a_reset(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask_reset(auth, acme.email)
    token = (await mail_room.letter()).token
    verified, may_go_on = asyncio.Event(), asyncio.Event()
    real = passwords.Passwords.verify

    async def verify(self: Any, *values: Any, **fields: Any) -> bool:
        fits = await real(self, *values, **fields)
        verified.set()
        await may_go_on.wait()
        return fits

    monkeypatch.setattr(passwords.Passwords, "verify", verify)
    signing_in = asyncio.create_task(refusal(sign_in(auth, acme.email)))
    await asyncio.wait_for(verified.wait(), 60)
    await reset(auth, token)
    may_go_on.set()
    assert await signing_in == "SIGN_IN_REFUSED"


async def change_email(auth: Any, session: Any, mail_room: MailRoom, email: str = NEW_EMAIL) -> list[Any]:
    request = pb.RequestEmailChangeRequest(new_email=email, password=PASSWORD)
    await auth.stub.RequestEmailChange(request, metadata=session)
    letters = await mail_room.letters()
    token = next(letter.token for letter in letters if letter.template == "email_change")
    answer = await auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=token))
    assert answer.organization_id == ""
    return letters


async def test_an_address_is_changed_by_whoever_reads_the_new_mailbox(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    session = await sign_in(auth, acme.email)
    letters = await change_email(auth, bearer(session), mail_room, " Ada@New.Example ")
    assert {(letter.template, letter.recipient) for letter in letters} == {
        ("email_change", NEW_EMAIL),
        ("email_change_requested", acme.email),
    }
    told = await mail_room.letter()
    assert (told.template, told.recipient, told.facts["new_email"]) == ("email_changed", acme.email, NEW_EMAIL)
    assert not await is_alive(auth, session)
    assert await refusal(sign_in(auth, acme.email)) == "SIGN_IN_REFUSED"
    await sign_in(auth, NEW_EMAIL)
    assert await actions(auth, acme.organization_id) == ["person.email_change", "person.email_change_request"]


async def test_asking_for_an_address_that_somebody_has_looks_the_same_and_comes_to_nothing(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    await seed_person(auth.database.dsn("auth_system"), acme.organization_id, NEW_EMAIL, "member")
    session = bearer(await sign_in(auth, acme.email))
    request = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password=PASSWORD)
    await auth.stub.RequestEmailChange(request, metadata=session)
    assert [letter.recipient for letter in await mail_room.letters()] == [acme.email]


async def test_of_two_accounts_that_want_one_address_the_first_gets_it(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    tokens = []
    for owner in (acme, other):
        session = bearer(await sign_in(auth, owner.email))
        request = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password=PASSWORD)
        await auth.stub.RequestEmailChange(request, metadata=session)
        tokens += [letter.token for letter in await mail_room.letters() if letter.template == "email_change"]
    await auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=tokens[0]))
    assert await refusal(auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=tokens[1]))) == "ACCOUNT_EXISTS"
    await sign_in(auth, other.email)


async def test_a_change_of_address_dies_with_a_new_password(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    session = bearer(await sign_in(auth, acme.email))
    request = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password=PASSWORD)
    await auth.stub.RequestEmailChange(request, metadata=session)
    token = next(letter.token for letter in await mail_room.letters() if letter.template == "email_change")
    await ask_reset(auth, acme.email)
    await reset(auth, (await mail_room.letter()).token)
    assert await refusal(auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=token))) == "EMAIL_TOKEN_INVALID"


async def test_an_erased_person_is_nobody(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    session = bearer(await sign_in(auth, acme.email))
    async with auth.db.system() as tx:
        await tx.execute(ERASE)
    assert await refusal(sign_in(auth, acme.email)) == "SIGN_IN_REFUSED"
    assert await refusal(auth.stub.GetMe(pb.GetMeRequest(), metadata=session)) == "PERSON_NOT_FOUND"
    assert await refusal(auth.stub.UpdateProfile(pb.UpdateProfileRequest(name="x"), metadata=session)) == (
        "PERSON_NOT_FOUND"
    )
    await ask_reset(auth, acme.email)
    assert await mail_room.letters() == []


async def test_tokens_whose_time_is_over_go(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    session = bearer(await sign_in(auth, acme.email))
    request = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password=PASSWORD)
    await auth.stub.RequestEmailChange(request, metadata=session)
    await ask_reset(auth, acme.email)
    await mail_room.letters()
    removed = [
        await credentials.remove_expired(auth.db, ManualClock(datetime.now(UTC) + timedelta(hours=hours)))
        for hours in (1, 26, 49)
    ]
    assert removed == [0, 1, 1]
