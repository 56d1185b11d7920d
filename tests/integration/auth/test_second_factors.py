"""Second factors: asked for after the right password alone, each code good once, wrong ones counted everywhere."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Any

import asyncpg
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import from_grpc
from services.auth import second_factors, totp
from services.auth.denials import Denials
from services.auth.throttle import FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX
from tests.support.accounts import PASSWORD, SeededOrganization, seed_organization, seed_person
from tests.support.mail_room import MailRoom
from tests.support.processes import process_tokens


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


async def sign_in(auth: Any, email: str, code: str = "", password: str = PASSWORD, address: str = "192.0.2.1") -> Any:
    request = pb.CreateSessionRequest(email=email, password=password, second_factor_code=code)
    return await auth.stub.CreateSession(
        request, metadata=vouched_address(process_tokens("graphql_gateway"), address, "auth")
    )


def bearer(session: Any) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {session.access_token}")]


class App:
    """An authenticator app whose owner waits for the next code before they use another one."""

    def __init__(self, auth: Any, secret: str) -> None:
        self._secret = base64.b32decode(secret)
        self._auth = auth

    async def code(self) -> str:
        """Returns a code that is good now; what was accepted before lies two steps back."""
        async with self._auth.db.system() as tx:
            await tx.execute("UPDATE second_factors SET newest_step = newest_step - 2")
            now = await tx.fetchval("SELECT clock_timestamp()")
        return totp.code_of(self._secret, totp.step_of(now))

    async def wrong(self) -> str:
        """Returns a code that is not good for a while."""
        async with self._auth.db.system() as tx:
            now = totp.step_of(await tx.fetchval("SELECT clock_timestamp()"))
        good = {totp.code_of(self._secret, step) for step in range(now - 2, now + 20)}
        return next(code for code in ("000000", "111111", "222222") if code not in good)


async def enroll(auth: Any, email: str) -> tuple[App, Any, list[str]]:
    """Sets a second factor up and returns the app, the session that did it, and the recovery codes."""
    session = await sign_in(auth, email)
    begun = await auth.stub.BeginTotpEnrollment(
        pb.BeginTotpEnrollmentRequest(password=PASSWORD), metadata=bearer(session)
    )
    app = App(auth, begun.secret)
    confirmed = await auth.stub.ConfirmTotpEnrollment(
        pb.ConfirmTotpEnrollmentRequest(code=await app.code()), metadata=bearer(session)
    )
    return app, session, list(confirmed.recovery_codes)


async def test_signing_in_takes_a_code_once_the_second_factor_is_confirmed(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    before = await sign_in(auth, acme.email)
    app, session, codes = await enroll(auth, acme.email)
    assert len(set(codes)) == totp.RECOVERY_CODES
    assert (await mail_room.letter()).template == "second_factor_enabled"
    # What was opened without it has ended.
    ended = pb.RefreshSessionRequest(refresh_token=before.refresh_token)
    assert await refusal(auth.stub.RefreshSession(ended)) == "REFRESH_REFUSED"
    assert (await auth.stub.GetMe(pb.GetMeRequest(), metadata=bearer(session))).person.second_factor
    assert await refusal(sign_in(auth, acme.email)) == "SECOND_FACTOR_REQUIRED"
    assert await refusal(sign_in(auth, acme.email, password="a wrong one")) == "SIGN_IN_REFUSED"
    assert await refusal(sign_in(auth, acme.email, await app.code(), password="a wrong one")) == "SIGN_IN_REFUSED"
    code = await app.code()
    await sign_in(auth, acme.email, f" {code[:3]} {code[3:]} ")


async def test_it_is_not_asked_for_before_it_is_confirmed(auth: Any, acme: SeededOrganization) -> None:
    session = await sign_in(auth, acme.email)
    begin = pb.BeginTotpEnrollmentRequest(password=PASSWORD)
    first = await auth.stub.BeginTotpEnrollment(begin, metadata=bearer(session))
    await sign_in(auth, acme.email)
    second = await auth.stub.BeginTotpEnrollment(begin, metadata=bearer(session))
    assert first.secret != second.secret
    # Beginning again replaces what was begun, and wrong codes confirm nothing.
    for app in (App(auth, first.secret),):
        confirm = pb.ConfirmTotpEnrollmentRequest(code=await app.code())
        assert await refusal(auth.stub.ConfirmTotpEnrollment(confirm, metadata=bearer(session))) == (
            "SECOND_FACTOR_WRONG"
        )
    await sign_in(auth, acme.email)
    app = App(auth, second.secret)
    async with auth.db.system() as tx:
        await tx.execute(
            "UPDATE second_factors SET create_time = create_time - $1::interval",
            second_factors.ENROLLMENT_GOOD + timedelta(seconds=1),
        )
    confirm = pb.ConfirmTotpEnrollmentRequest(code=await app.code())
    assert await refusal(auth.stub.ConfirmTotpEnrollment(confirm, metadata=bearer(session))) == (
        "SECOND_FACTOR_MISSING"
    )


async def test_a_code_is_good_once_however_many_use_it_at_once(auth: Any, acme: SeededOrganization) -> None:
    app, _, _ = await enroll(auth, acme.email)
    code = await app.code()
    outcomes = await asyncio.gather(
        *(sign_in(auth, acme.email, code, address=f"192.0.2.{number}") for number in range(4)), return_exceptions=True
    )
    reasons = [from_grpc(outcome).reason for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert reasons == ["SECOND_FACTOR_REFUSED"] * 3
    assert await refusal(sign_in(auth, acme.email, code)) == "SECOND_FACTOR_REFUSED"


async def test_whoever_tries_a_code_waits_for_whoever_tries_one_already(auth: Any, acme: SeededOrganization) -> None:
    app, _, _ = await enroll(auth, acme.email)
    code = await app.code()
    other = await asyncpg.connect(auth.database.dsn("admin"))
    trying = other.transaction()
    await trying.start()
    await other.execute("SELECT FROM auth.second_factors FOR UPDATE")
    signing_in = asyncio.create_task(refusal(sign_in(auth, acme.email, code)))
    async with asyncio.timeout(60):
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.02)
    # Somebody else was first with this code.
    await other.execute("UPDATE auth.second_factors SET newest_step = newest_step + 100")
    await trying.commit()
    await other.close()
    assert await signing_in == "SECOND_FACTOR_REFUSED"


async def test_a_recovery_code_is_good_once_and_told(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    _, _, codes = await enroll(auth, acme.email)
    await mail_room.letters()
    await sign_in(auth, acme.email, codes[0].lower())
    letter = await mail_room.letter()
    assert (letter.template, letter.facts["left_count"]) == ("recovery_code_used", "9")
    assert await refusal(sign_in(auth, acme.email, codes[0])) == "SECOND_FACTOR_REFUSED"
    await sign_in(auth, acme.email, codes[1])


async def test_a_recovery_code_of_somebody_else_is_none(auth: Any, acme: SeededOrganization) -> None:
    await seed_person(auth.database.dsn("auth_system"), acme.organization_id, "m@acme.example", "member")
    _, _, codes = await enroll(auth, acme.email)
    await enroll(auth, "m@acme.example")
    assert await refusal(sign_in(auth, "m@acme.example", codes[0])) == "SECOND_FACTOR_REFUSED"
    await sign_in(auth, acme.email, codes[0])


async def test_wrong_codes_are_counted_over_all_addresses_and_kept_in_the_database(
    auth: Any, acme: SeededOrganization
) -> None:
    app, _, codes = await enroll(auth, acme.email)
    guesses = [
        await refusal(sign_in(auth, acme.email, await app.wrong(), address=f"203.0.113.{number}"))
        for number in range(second_factors.FAILURES_MAX + 2)
    ]
    assert guesses.count("SECOND_FACTOR_REFUSED") == second_factors.FAILURES_MAX
    assert guesses[-2:] == ["SECOND_FACTOR_THROTTLED"] * 2
    # Neither a right code nor a recovery code is tried then.
    assert await refusal(sign_in(auth, acme.email, await app.code())) == "SECOND_FACTOR_THROTTLED"
    assert await refusal(sign_in(auth, acme.email, codes[0])) == "SECOND_FACTOR_THROTTLED"
    async with auth.db.system() as tx:
        await tx.execute(
            "UPDATE second_factors SET failure_time = failure_time - make_interval(secs => $1)",
            second_factors.FAILURE_FORGOTTEN_SECONDS,
        )
    await sign_in(auth, acme.email, await app.code())


async def test_a_wrong_code_is_a_failed_sign_in_and_noted(auth: Any, acme: SeededOrganization) -> None:
    app, _, _ = await enroll(auth, acme.email)
    for _ in range(3):
        # Neither of these uses anything up.
        assert await refusal(sign_in(auth, acme.email)) == "SECOND_FACTOR_REQUIRED"
    for _ in range(FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX):
        async with auth.db.system() as tx:
            await tx.execute("UPDATE second_factors SET failure_level = 0")
        assert await refusal(sign_in(auth, acme.email, await app.wrong())) == "SECOND_FACTOR_REFUSED"
    assert await refusal(sign_in(auth, acme.email, await app.code())) == "SIGN_IN_THROTTLED"
    denials: Denials = auth.denials
    await denials.write()
    async with auth.db.system() as tx:
        counted = await tx.fetchval(
            "SELECT (details ->> 'count')::int FROM audit_entries WHERE organization_id = $1"
            " AND action = 'session.deny' AND details ->> 'reason' = 'SECOND_FACTOR_REFUSED'",
            acme.organization_id,
        )
    assert counted == FAILURES_PER_ACCOUNT_AND_ADDRESS_MAX


async def test_it_is_removed_with_password_and_code(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    app, session, codes = await enroll(auth, acme.email)
    await mail_room.letters()

    async def disable(password: str, code: str) -> None:
        request = pb.DisableTotpRequest(password=password, code=code)
        await auth.stub.DisableTotp(request, metadata=bearer(session))

    assert await refusal(disable("a wrong one", await app.code())) == "PASSWORD_WRONG"
    assert await refusal(disable(PASSWORD, await app.wrong())) == "SECOND_FACTOR_WRONG"
    begin = pb.BeginTotpEnrollmentRequest(password=PASSWORD)
    assert await refusal(auth.stub.BeginTotpEnrollment(begin, metadata=bearer(session))) == "SECOND_FACTOR_EXISTS"
    await disable(PASSWORD, codes[0])
    assert [letter.template for letter in await mail_room.letters()] == [
        "recovery_code_used", "second_factor_disabled"
    ]  # fmt: skip
    await sign_in(auth, acme.email)
    assert await refusal(disable(PASSWORD, codes[1])) == "SECOND_FACTOR_MISSING"


async def test_recovery_codes_are_replaced_with_a_code_of_the_app_alone(
    auth: Any, acme: SeededOrganization, mail_room: MailRoom
) -> None:
    app, session, old = await enroll(auth, acme.email)
    await mail_room.letters()

    async def regenerate(code: str) -> list[str]:
        request = pb.RegenerateRecoveryCodesRequest(password=PASSWORD, code=code)
        return list((await auth.stub.RegenerateRecoveryCodes(request, metadata=bearer(session))).recovery_codes)

    assert await refusal(regenerate(old[0])) == "SECOND_FACTOR_WRONG"
    new = await regenerate(await app.code())
    assert (await mail_room.letter()).template == "recovery_codes_replaced"
    assert set(new).isdisjoint(old)
    assert await refusal(sign_in(auth, acme.email, old[1])) == "SECOND_FACTOR_REFUSED"
    await sign_in(auth, acme.email, new[0])


async def test_a_sign_in_that_is_under_way_does_not_get_past_a_new_second_factor(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    real = second_factors.SecondFactors.ask

    async def ask(self: Any, person: Any, code: str) -> None:
        await real(self, person, code)
        asked.set()
        await may_go_on.wait()

    session = await sign_in(auth, acme.email)
    monkeypatch.setattr(second_factors.SecondFactors, "ask", ask)
    late = asyncio.create_task(refusal(sign_in(auth, acme.email)))
    await asyncio.wait_for(asked.wait(), 60)
    begun = await auth.stub.BeginTotpEnrollment(
        pb.BeginTotpEnrollmentRequest(password=PASSWORD), metadata=bearer(session)
    )
    code = await App(auth, begun.secret).code()
    await auth.stub.ConfirmTotpEnrollment(pb.ConfirmTotpEnrollmentRequest(code=code), metadata=bearer(session))
    may_go_on.set()
    assert await late == "SIGN_IN_REFUSED"


async def test_a_password_reset_does_not_remove_it(auth: Any, acme: SeededOrganization, mail_room: MailRoom) -> None:
    await enroll(auth, acme.email)
    await mail_room.letters()
    await auth.stub.RequestPasswordReset(pb.RequestPasswordResetRequest(email=acme.email))
    token = (await mail_room.letter()).token
    new = "another pass phrase altogether"
    await auth.stub.ResetPassword(pb.ResetPasswordRequest(token=token, new_password=new))
    assert await refusal(sign_in(auth, acme.email, password=new)) == "SECOND_FACTOR_REQUIRED"


async def test_the_secret_is_sealed_and_bound_to_its_person(auth: Any, acme: SeededOrganization) -> None:
    await seed_person(auth.database.dsn("auth_system"), acme.organization_id, "m@acme.example", "member")
    app, _, codes = await enroll(auth, acme.email)
    await enroll(auth, "m@acme.example")
    secret = app._secret
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT f::text AS row FROM second_factors f UNION ALL SELECT c::text FROM recovery_codes c"
        )
    for text in (secret.hex(), totp.base32(secret), *codes, *(code.replace("-", "") for code in codes)):
        assert not [row for row in rows if text.lower() in row["row"].lower()]
    # Whoever can write to the table cannot put their own secret in another's place.
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    await admin.execute(
        "UPDATE auth.second_factors AS f SET secret = o.secret FROM auth.second_factors AS o"
        " WHERE f.person_id <> o.person_id AND f.person_id <> $1",
        acme.owner_id,
    )
    await admin.close()
    assert await refusal(sign_in(auth, "m@acme.example", await app.code())) == "INTERNAL_ERROR"
