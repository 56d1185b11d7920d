"""Sessions after the sign-in: renewed once per token, moved, listed, ended; a token shown twice ends its family."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.clock import ManualClock
from mesh.ids import RandomIds
from mesh.jobs import Job
from mesh.rpc.client_address import vouched_address
from mesh.rpc.errors import from_grpc
from mesh.rpc.tokens import SESSION_SECONDS, read_jwks, read_session_token
from services.auth import families, store
from services.auth.model import RevokeReason
from services.auth.refresh_tokens import is_refresh_token
from services.auth.sessions import Sessions
from tests.support.accounts import PASSWORD, SeededOrganization, mail, seed_organization, seed_person
from tests.support.processes import process_tokens


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def other(auth: Any, acme: SeededOrganization) -> SeededOrganization:
    """A second organization in which acme's owner is a member."""
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    await execute(auth, JOIN, other.organization_id, acme.owner_id, "member", datetime.now(UTC))
    return other


JOIN = "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, $3, $4)"


async def execute(auth: Any, statement: str, *values: Any) -> Any:
    async with auth.db.system() as tx:
        return await tx.fetchval(statement, *values)


async def sign_in(auth: Any, email: str, **fields: Any) -> pb.CreateSessionResponse:
    return await auth.stub.CreateSession(pb.CreateSessionRequest(email=email, password=PASSWORD, **fields))


async def refresh(auth: Any, token: str) -> pb.CreateSessionResponse:
    return await auth.stub.RefreshSession(pb.RefreshSessionRequest(refresh_token=token))


async def reason(call: Any) -> str:
    """The reason of a refusal, or an empty string."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_grpc(error).reason
    return ""


def bearer(tokens: pb.CreateSessionResponse) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {tokens.access_token}")]


async def claims_of(auth: Any, tokens: pb.CreateSessionResponse) -> Any:
    jwks = (await auth.stub.GetJwks(pb.GetJwksRequest())).jwks_json
    return read_session_token(tokens.access_token, read_jwks(jwks), datetime.now(UTC))


async def audited(auth: Any, organization_id: UUID, action: str) -> list[str]:
    async with auth.db.system() as tx:
        rows = await tx.fetch(
            "SELECT resource FROM audit_entries WHERE organization_id = $1 AND action = $2 ORDER BY audit_entry_id",
            organization_id,
            action,
        )
    return [row["resource"] for row in rows]


async def why_ended(auth: Any, session_id: str) -> str | None:
    return await execute(auth, "SELECT revoke_reason FROM sessions WHERE session_id = $1", UUID(session_id))


async def test_a_session_is_renewed_again_and_again_each_token_once(auth: Any, acme: SeededOrganization) -> None:
    first = await sign_in(auth, acme.email)
    tokens, seen = first, {first.refresh_token}
    for _ in range(5):
        tokens = await refresh(auth, tokens.refresh_token)
        assert is_refresh_token(tokens.refresh_token)
        seen.add(tokens.refresh_token)
        assert (tokens.session_id, tokens.person_id) == (first.session_id, first.person_id)
        claims = await claims_of(auth, tokens)
        assert (str(claims.session_id), claims.role) == (first.session_id, "owner")
    assert len(seen) == 6
    days_left = (tokens.refresh_expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) / timedelta(days=1)
    assert 6.99 < days_left <= families.IDLE_DAYS_MAX


async def test_what_is_stored_of_a_token_opens_nothing(auth: Any, acme: SeededOrganization) -> None:
    tokens = await sign_in(auth, acme.email)
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT t.*, s.* FROM refresh_tokens t JOIN sessions s USING (session_id)")
    assert len(rows) == 1
    assert tokens.refresh_token not in str(rows)
    assert bytes.fromhex(tokens.refresh_token[6:]) not in rows[0]["digest"]


async def test_a_token_that_is_shown_again_ends_its_family_which_is_audited_and_mailed(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    stolen, elsewhere = await sign_in(auth, acme.email), await sign_in(auth, acme.email)
    newest = await refresh(auth, (await refresh(auth, stolen.refresh_token)).refresh_token)
    for token in (stolen.refresh_token, newest.refresh_token, stolen.refresh_token):
        assert await reason(refresh(auth, token)) == "REFRESH_REFUSED"
    assert await why_ended(auth, stolen.session_id) == "refresh_token_reused"
    # Whatever is shown of a family that has ended is told to nobody a second time.
    for organization in (acme, other):
        assert await audited(auth, organization.organization_id, "session.reuse") == [f"session/{stolen.session_id}"]
    async with auth.db.system() as tx:
        rows = await tx.fetch("SELECT * FROM jobs WHERE kind = 'send_email'")
    assert [json.loads(row["payload"])["template"] for row in rows] == ["session_reuse"]
    payload = json.loads(rows[0]["payload"])
    assert payload["recipient"] == acme.email
    job = Job(job_id=rows[0]["job_id"], kind="send_email", organization_id=None, payload=payload, attempt_count=1)
    assert set(mail().facts_of(job)) == {"person_name", "address", "time"}
    assert (await refresh(auth, elsewhere.refresh_token)).session_id == elsewhere.session_id


async def test_of_many_refreshes_with_one_token_exactly_one_wins(auth: Any, acme: SeededOrganization) -> None:
    tokens = await sign_in(auth, acme.email)
    reasons = await asyncio.gather(*(reason(refresh(auth, tokens.refresh_token)) for _ in range(20)))
    assert sorted(set(reasons)) == ["", "REFRESH_REFUSED"]
    assert reasons.count("") == 1
    assert await execute(auth, "SELECT count(*) FROM refresh_tokens") == 2
    # The others showed a used token, so the family has ended.
    assert await why_ended(auth, tokens.session_id) == "refresh_token_reused"
    assert await audited(auth, acme.organization_id, "session.reuse") == [f"session/{tokens.session_id}"]


@pytest.mark.parametrize(
    "token", ["x", "tw_rt_", "tw_rt_" + "0" * 64, "tw_sa_" + "0" * 64, "sk_live_" + "0" * 64, "a.b.c", "tw_rt_\u00e9"]
)
async def test_what_is_no_refresh_token_is_refused_without_a_query(
    auth: Any, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_values: Any, **_fields: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(store.sessions, "renew", never)
    assert await reason(refresh(auth, token)) == "REFRESH_REFUSED"


async def test_an_unknown_refresh_token_is_refused_and_an_empty_one_is_named(
    auth: Any, acme: SeededOrganization
) -> None:
    unknown = auth.families._refresh_tokens.mint().token
    assert await reason(refresh(auth, unknown)) == "REFRESH_REFUSED"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await refresh(auth, "")
    assert from_grpc(refused.value).violations[0].field == "refresh_token"


async def test_a_refresh_token_is_no_bearer_token_and_an_access_token_renews_nothing(
    auth: Any, acme: SeededOrganization
) -> None:
    tokens = await sign_in(auth, acme.email)
    metadata = [("authorization", f"Bearer {tokens.refresh_token}")]
    assert await reason(auth.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata)) == "CREDENTIALS_INVALID"
    assert await reason(refresh(auth, tokens.access_token)) == "REFRESH_REFUSED"


async def test_a_refresh_reads_role_and_membership_anew(auth: Any, acme: SeededOrganization) -> None:
    tokens = await sign_in(auth, acme.email)
    before = await claims_of(auth, tokens)
    await execute(auth, "UPDATE memberships SET role = 'admin' WHERE person_id = $1", acme.owner_id)
    await execute(auth, "INSERT INTO platform_roles VALUES ($1, 'platform_support', now())", acme.owner_id)
    tokens = await refresh(auth, tokens.refresh_token)
    after = await claims_of(auth, tokens)
    assert (after.role, after.platform_roles, tokens.role) == ("admin", ("support",), access_pb2.ROLE_ADMIN)
    assert after.membership_version > before.membership_version
    await execute(auth, "DELETE FROM memberships WHERE person_id = $1", acme.owner_id)
    assert await reason(refresh(auth, tokens.refresh_token)) == "REFRESH_REFUSED"
    assert await why_ended(auth, tokens.session_id) == "membership_ended"


async def test_who_leaves_and_joins_again_has_a_higher_version(auth: Any, acme: SeededOrganization) -> None:
    async def version() -> int:
        return await execute(auth, "SELECT version FROM memberships WHERE person_id = $1", acme.owner_id)

    first = await version()
    await execute(auth, "UPDATE memberships SET create_time = now(), role = role WHERE person_id = $1", acme.owner_id)
    assert await version() == first
    await execute(auth, "UPDATE memberships SET version = 0 WHERE person_id = $1", acme.owner_id)
    second = await version()
    await execute(auth, "DELETE FROM memberships WHERE person_id = $1", acme.owner_id)
    await execute(auth, JOIN, acme.organization_id, acme.owner_id, "owner", datetime.now(UTC))
    assert first < second < await version()


async def test_a_session_ends_when_it_is_not_renewed_and_after_its_life_in_any_case(
    auth: Any, acme: SeededOrganization
) -> None:
    clock = ManualClock(datetime.now(UTC))
    auth.families._clock = clock
    auth.signing_keys._clock = clock
    for signer in auth.signing_keys._signers.values():
        signer._clock = clock
    idle, busy = await sign_in(auth, acme.email), await sign_in(auth, acme.email)
    end = clock.now() + timedelta(days=families.LIFE_DAYS_MAX)
    clock.advance(timedelta(days=families.IDLE_DAYS_MAX).total_seconds() - 60)
    busy = await refresh(auth, busy.refresh_token)
    clock.advance(60)
    assert await reason(refresh(auth, idle.refresh_token)) == "REFRESH_REFUSED"
    assert await why_ended(auth, idle.session_id) is None
    while clock.now() + timedelta(days=6) < end:
        clock.advance(timedelta(days=6).total_seconds())
        busy = await refresh(auth, busy.refresh_token)
    clock.advance((end - clock.now()).total_seconds() - 60)
    busy = await refresh(auth, busy.refresh_token)
    assert abs(busy.refresh_expire_time.ToDatetime(tzinfo=UTC) - end) < timedelta(milliseconds=1)
    assert busy.expire_time.ToDatetime(tzinfo=UTC) <= end < clock.now() + timedelta(seconds=SESSION_SECONDS)
    clock.advance(60)
    assert await reason(refresh(auth, busy.refresh_token)) == "REFRESH_REFUSED"


async def test_switching_moves_the_session_and_makes_no_refresh_token(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    stranger = await seed_organization(auth.database.dsn("auth_system"), "stranger")
    tokens = await sign_in(auth, acme.email)
    assert tokens.organization_id == str(acme.organization_id)
    wanted = pb.SwitchOrganizationRequest(organization_id=str(other.organization_id))
    moved = await auth.stub.SwitchOrganization(wanted, metadata=bearer(tokens))
    assert (moved.organization_id, moved.session_id) == (str(other.organization_id), tokens.session_id)
    assert (moved.role, moved.refresh_token) == (access_pb2.ROLE_MEMBER, "")
    renewed = await refresh(auth, tokens.refresh_token)
    assert (renewed.organization_id, renewed.role) == (str(other.organization_id), access_pb2.ROLE_MEMBER)
    assert await audited(auth, other.organization_id, "session.switch") == [f"session/{tokens.session_id}"]
    for organization_id in (stranger.organization_id, RandomIds().uuid7()):
        wanted = pb.SwitchOrganizationRequest(organization_id=str(organization_id))
        assert await reason(auth.stub.SwitchOrganization(wanted, metadata=bearer(moved))) == "ORGANIZATION_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.stub.SwitchOrganization(pb.SwitchOrganizationRequest(), metadata=bearer(moved))
    assert from_grpc(refused.value).violations[0].field == "organization_id"


async def test_people_list_and_end_their_own_sessions_and_no_others(auth: Any, acme: SeededOrganization) -> None:
    await seed_person(auth.database.dsn("auth_system"), acme.organization_id, "m@acme.example", "member")
    theirs = await sign_in(auth, "m@acme.example")
    first, second = await sign_in(auth, acme.email), await sign_in(auth, acme.email)
    listed = (await auth.stub.ListSessions(pb.ListSessionsRequest(), metadata=bearer(second))).sessions
    assert [(each.session_id, each.current) for each in listed] == [
        (second.session_id, True),
        (first.session_id, False),
    ]
    assert listed[0].address == "ipv4:127.0.0.1"
    assert "grpc" in listed[0].user_agent
    for session_id in (theirs.session_id, str(RandomIds().uuid7())):
        wanted = pb.RevokeSessionRequest(session_id=session_id)
        assert await reason(auth.stub.RevokeSession(wanted, metadata=bearer(second))) == "SESSION_NOT_FOUND"
    wanted = pb.RevokeSessionRequest(session_id=first.session_id)
    for _ in range(2):
        await auth.stub.RevokeSession(wanted, metadata=bearer(second))
    assert await audited(auth, acme.organization_id, "session.revoke") == [f"session/{first.session_id}"]
    await auth.stub.RevokeSession(pb.RevokeSessionRequest(), metadata=bearer(second))
    for ended in (first, second):
        assert await reason(refresh(auth, ended.refresh_token)) == "REFRESH_REFUSED"
        assert await why_ended(auth, ended.session_id) == "signed_out"
    assert (await refresh(auth, theirs.refresh_token)).session_id == theirs.session_id


async def test_the_gateway_tells_what_a_client_calls_itself_and_nobody_else_is_believed(
    auth: Any, acme: SeededOrganization
) -> None:
    request = pb.CreateSessionRequest(email=acme.email, password=PASSWORD)
    for process in ("graphql_gateway", "edge_proxy"):
        vouched = vouched_address(process_tokens(process), "192.0.2.7", "auth", user_agent="Firefox")
        tokens = await auth.stub.CreateSession(request, metadata=vouched)
    listed = (await auth.stub.ListSessions(pb.ListSessionsRequest(), metadata=bearer(tokens))).sessions
    assert (listed[1].user_agent, listed[1].address) == ("Firefox", "192.0.2.7")
    assert "Firefox" not in listed[0].user_agent


@pytest.mark.parametrize("keep_current", [True, False])
async def test_signing_out_everywhere_ends_all_sessions_of_the_caller(
    auth: Any, acme: SeededOrganization, other: SeededOrganization, *, keep_current: bool
) -> None:
    theirs = await sign_in(auth, other.email)
    elsewhere = await sign_in(auth, acme.email, organization_id=str(other.organization_id))
    ended = [await sign_in(auth, acme.email), elsewhere]
    current = await sign_in(auth, acme.email)
    answer = await auth.stub.RevokeAllSessions(
        pb.RevokeAllSessionsRequest(keep_current=keep_current), metadata=bearer(current)
    )
    assert answer.revoked_count == len(ended) + (not keep_current)
    for each in ended:
        assert await reason(refresh(auth, each.refresh_token)) == "REFRESH_REFUSED"
    assert await reason(refresh(auth, current.refresh_token)) == ("" if keep_current else "REFRESH_REFUSED")
    assert await audited(auth, other.organization_id, "session.revoke") == [f"session/{elsewhere.session_id}"]
    assert (await refresh(auth, theirs.refresh_token)).session_id == theirs.session_id


async def test_beyond_the_most_sessions_the_one_renewed_longest_ago_ends(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "SESSIONS_PER_PERSON_MAX", 3)
    first, second, third = [await sign_in(auth, acme.email) for _ in range(3)]
    first = await refresh(auth, first.refresh_token)
    fourth = await sign_in(auth, acme.email)
    assert await why_ended(auth, second.session_id) == "too_many"
    for kept in (first, third, fourth):
        assert await reason(refresh(auth, kept.refresh_token)) == ""
    await asyncio.gather(*(sign_in(auth, acme.email) for _ in range(8)))
    assert await execute(auth, "SELECT count(*) FROM sessions WHERE revoke_time IS NULL") == 3


async def test_a_sign_in_with_a_password_that_was_changed_meanwhile_opens_nothing(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Sessions._find

    async def find_and_lose(*values: Any, **fields: Any) -> Any:
        person = await find(*values, **fields)
        await execute(auth, "UPDATE people SET credential_version = 9 WHERE person_id = $1", acme.owner_id)
        return person

    monkeypatch.setattr(Sessions, "_find", find_and_lose)
    assert await reason(sign_in(auth, acme.email)) == "SIGN_IN_REFUSED"
    assert await execute(auth, "SELECT count(*) FROM sessions") == 0


async def test_ending_all_sessions_and_opening_one_wait_for_each_other(auth: Any, acme: SeededOrganization) -> None:
    await sign_in(auth, acme.email)
    async with auth.db.system() as tx:
        assert len(await store.sessions.revoke_all(tx, acme.owner_id, reason=RevokeReason.PASSWORD_RESET)) == 1
        opening = asyncio.create_task(reason(sign_in(auth, acme.email)))
        async with asyncio.timeout(60):
            while not await execute(auth, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
        await tx.execute("UPDATE people SET credential_version = 9 WHERE person_id = $1", acme.owner_id)
    assert await opening == "SIGN_IN_REFUSED"
    assert await execute(auth, "SELECT count(*) FROM sessions WHERE revoke_time IS NULL") == 0


async def test_what_others_end_is_ended_and_named(
    auth: Any, acme: SeededOrganization, other: SeededOrganization
) -> None:
    here = await sign_in(auth, acme.email)
    there = await sign_in(auth, acme.email, organization_id=str(other.organization_id))
    theirs = await sign_in(auth, other.email)
    async with auth.db.system() as tx:
        ended = await store.sessions.revoke_in_organization(tx, acme.owner_id, other.organization_id)
        assert [str(each) for each in ended] == [there.session_id]
        assert [str(each) for each in await store.sessions.revoke_organization(tx, other.organization_id)] == [
            theirs.session_id
        ]
        assert await store.sessions.revoke_all(tx, acme.owner_id, UUID(here.session_id)) == []
        assert [str(each) for each in await store.sessions.revoke_all(tx, acme.owner_id)] == [here.session_id]
    assert await why_ended(auth, there.session_id) == "membership_ended"
    assert await why_ended(auth, theirs.session_id) == "organization_deleted"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sessions SET revoke_time = NULL, revoke_reason = NULL",
        "UPDATE sessions SET revoke_reason = 'x'",
        "UPDATE refresh_tokens SET use_time = NULL",
    ],
)
async def test_what_has_ended_stays_so_whoever_asks(auth: Any, acme: SeededOrganization, statement: str) -> None:
    tokens = await sign_in(auth, acme.email)
    await refresh(auth, tokens.refresh_token)
    await auth.stub.RevokeSession(pb.RevokeSessionRequest(), metadata=bearer(tokens))
    with pytest.raises(Exception, match="stays so"):
        await execute(auth, statement)
