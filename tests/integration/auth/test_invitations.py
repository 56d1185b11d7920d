"""People are invited, and they accept, decline, or let it be."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.clock import ManualClock, SystemClock
from mesh.ids import RandomIds
from mesh.rpc.errors import from_grpc
from services.auth import invitations as module
from services.auth import passwords
from tests.support.accounts import SeededOrganization, seed_organization
from tests.support.teams import (
    ROLES,
    audited,
    execute,
    fetch,
    newest_token,
    refusal,
    seed_member,
    seed_service_account,
    seed_stranger,
    sent,
    until_waiting,
)

OWNER, ADMIN, MEMBER = access_pb2.ROLE_OWNER, access_pb2.ROLE_ADMIN, access_pb2.ROLE_MEMBER
EMAIL = "new@people.example"
ELSEWHERE = UUID(int=1)
"""The organization that a stranger's token is for; what they do to their own account does not depend on it."""


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


def invite(
    auth: Any, acme: SeededOrganization, email: str = EMAIL, role: Any = MEMBER, metadata: Any = None, **fields: Any
) -> Any:
    request = pb.InviteMemberRequest(organization_id=str(acme.organization_id), email=email, role=role, **fields)
    return auth.stub.InviteMember(request, metadata=metadata or auth.person(acme.owner_id, acme.organization_id))


def accept(auth: Any, person_id: UUID, **fields: Any) -> Any:
    return auth.stub.AcceptInvitation(
        pb.AcceptInvitationRequest(**fields), metadata=auth.person(person_id, ELSEWHERE, "member")
    )


def resend(auth: Any, acme: SeededOrganization, invitation_id: str, metadata: Any = None) -> Any:
    request = pb.ResendInvitationRequest(organization_id=str(acme.organization_id), invitation_id=invitation_id)
    return auth.stub.ResendInvitation(request, metadata=metadata or auth.person(acme.owner_id, acme.organization_id))


def cancel(auth: Any, acme: SeededOrganization, invitation_id: str) -> Any:
    request = pb.CancelInvitationRequest(organization_id=str(acme.organization_id), invitation_id=invitation_id)
    return auth.stub.CancelInvitation(request, metadata=auth.person(acme.owner_id, acme.organization_id))


def decline(auth: Any, token: str) -> Any:
    return auth.stub.DeclineInvitation(pb.DeclineInvitationRequest(token=token))


async def listed(auth: Any, acme: SeededOrganization, state: int = 0) -> list[str]:
    page = await auth.stub.ListInvitations(
        pb.ListInvitationsRequest(organization_id=str(acme.organization_id), state=state),
        metadata=auth.person(acme.owner_id, acme.organization_id),
    )
    return [each.email for each in page.invitations]


async def members(auth: Any, acme: SeededOrganization) -> dict[UUID, str]:
    rows = await fetch(auth, "SELECT person_id, role FROM memberships WHERE organization_id = $1", acme.organization_id)
    return {row["person_id"]: row["role"] for row in rows}


async def pass_time(auth: Any, **delta: float) -> None:
    """Makes all invitations older, as somebody who may do anything."""
    connection = await asyncpg.connect(auth.database.dsn("admin"))
    try:
        await connection.execute(
            "UPDATE auth.invitations SET create_time = create_time - $1::interval,"
            " send_time = send_time - $1::interval, expire_time = expire_time - $1::interval",
            timedelta(**delta),
        )
    finally:
        await connection.close()


# Inviting


async def test_an_invitation_is_sent_and_shown_without_its_token(auth: Any, acme: SeededOrganization) -> None:
    invitation = await invite(auth, acme, " New@People.EXAMPLE ", ADMIN)
    assert (invitation.email, invitation.role, invitation.state) == (EMAIL, ADMIN, pb.INVITATION_STATE_PENDING)
    assert (invitation.organization_name, invitation.inviter_id) == ("acme", str(acme.owner_id))
    good_for = invitation.expire_time.ToDatetime() - invitation.create_time.ToDatetime()
    assert good_for == timedelta(days=7)
    (letter,) = await sent(auth, "invitation")
    assert letter.recipient == EMAIL
    assert letter.facts["inviter_name"] == acme.email
    assert (letter.facts["organization_name"], letter.facts["role"]) == ("acme", "admin")
    assert letter.facts["link"].endswith("/invitation")
    assert letter.token not in str(invitation)
    (entry,) = await audited(auth, "invitation.create")
    assert (entry["after"]["email"], entry["after"]["role"]) == (EMAIL, "admin")
    assert entry["resource"] == f"invitation/{invitation.invitation_id}"
    for table in ("invitations", "audit_entries", "jobs", "idempotency_keys"):
        rows = await fetch(auth, f"SELECT t::text AS text FROM {table} AS t")
        assert all(letter.token not in row["text"] for row in rows), table


async def test_an_answer_does_not_tell_whether_there_is_an_account(auth: Any, acme: SeededOrganization) -> None:
    await seed_stranger(auth, "known@people.example")
    known, unknown = await invite(auth, acme, "known@people.example"), await invite(auth, acme, "fresh@people.example")
    for answer in (known, unknown):
        for name in ("email", "invitation_id", "create_time", "expire_time"):
            answer.ClearField(name)
    assert known == unknown
    assert (await refusal(invite(auth, acme, "known@people.example"))).reason == "INVITATION_EXISTS"
    assert (await refusal(invite(auth, acme, "fresh@people.example"))).reason == "INVITATION_EXISTS"


async def test_members_are_not_invited_and_other_tenants_members_are(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    refused = await refusal(invite(auth, acme, acme.email.upper()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MEMBER_EXISTS")
    assert (await invite(auth, acme, other.email)).email == other.email


async def test_nobody_invites_above_their_own_role(auth: Any, acme: SeededOrganization) -> None:
    rank = {"owner": 3, "admin": 2, "member": 1}
    for caller, own in rank.items():
        person = await seed_member(auth, acme.organization_id, f"caller-{caller}", caller)
        _, machine = await seed_service_account(auth, acme.organization_id, caller)
        for kind, metadata in (("p", auth.person(person, acme.organization_id, caller)), ("m", machine)):
            for role, given in rank.items():
                call = invite(auth, acme, f"{caller}-{role}-{kind}@people.example", ROLES[role], metadata)
                if caller == "member":
                    assert (await refusal(call)).reason == "ROLE_INSUFFICIENT"
                elif given > own:
                    assert (await refusal(call)).reason == "ROLE_ABOVE_OWN"
                else:
                    assert (await call).role == ROLES[role]


async def test_a_replay_sends_one_invitation(auth: Any, acme: SeededOrganization) -> None:
    first = await invite(auth, acme, idempotency_key="k")
    assert await invite(auth, acme, idempotency_key="k") == first
    assert len(await sent(auth, "invitation")) == 1


async def test_an_address_has_one_invitation_at_a_time_however_parallel(auth: Any, acme: SeededOrganization) -> None:
    answers = await asyncio.gather(*(invite(auth, acme) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, pb.Invitation) for answer in answers) == 1
    assert len(await sent(auth, "invitation")) == 1


async def test_so_many_invitations_wait_at_most(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 3)
    answers = await asyncio.gather(
        *(invite(auth, acme, f"p{number}@people.example") for number in range(6)), return_exceptions=True
    )
    assert sum(isinstance(answer, pb.Invitation) for answer in answers) == 3
    assert (await refusal(invite(auth, acme))).reason == "INVITATION_LIMIT_REACHED"
    await pass_time(auth, days=8)
    await invite(auth, acme)


async def test_one_address_is_written_to_a_few_times_a_day(auth: Any, acme: SeededOrganization) -> None:
    for _ in range(module.SENDS_PER_ADDRESS_AND_DAY_MAX):
        await cancel(auth, acme, (await invite(auth, acme)).invitation_id)
    refused = await refusal(invite(auth, acme))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "INVITATIONS_SENT_TOO_OFTEN")
    assert refused.retry_after_seconds is not None
    assert 23 * 3_600 < refused.retry_after_seconds <= 24 * 3_600
    await invite(auth, acme, "else@people.example")
    await pass_time(auth, hours=25)
    await invite(auth, acme)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"email": "x"}, "email"),
        ({"role": 0}, "role"),
        ({"role": 99}, "role"),
        ({"organization_id": "x"}, "organization_id"),
    ],
)
async def test_a_wrong_invitation_is_refused_by_field(
    auth: Any, acme: SeededOrganization, fields: dict[str, Any], field: str
) -> None:
    request = pb.InviteMemberRequest(
        **{"organization_id": str(acme.organization_id), "email": EMAIL, "role": MEMBER, **fields}
    )
    metadata = auth.person(acme.owner_id, acme.organization_id)
    assert [each.field for each in (await refusal(auth.stub.InviteMember(request, metadata=metadata))).violations] == [
        field
    ]


@pytest.mark.parametrize(
    ("column", "reason"), [("restricted", "ORGANIZATION_RESTRICTED"), ("suspended", "ORGANIZATION_SUSPENDED")]
)
async def test_nobody_joins_an_organization_that_does_not_pay(
    auth: Any, acme: SeededOrganization, column: str, reason: str
) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    await execute(auth, f"UPDATE organizations SET {column} = true")
    calls = [
        invite(auth, acme, "else@people.example"),
        resend(auth, acme, invitation.invitation_id),
        accept(auth, person, token=token),
        accept(auth, person, invitation_id=invitation.invitation_id),
    ]
    assert [(await refusal(call)).reason for call in calls] == [reason] * 4
    await execute(auth, f"UPDATE organizations SET {column} = false")
    assert (await accept(auth, person, token=token)).role == MEMBER


# Listing


async def test_invitations_are_listed_by_state_in_pages_newest_first(auth: Any, acme: SeededOrganization) -> None:
    for number in range(5):
        await invite(auth, acme, f"p{number}@people.example")
    seen, token = [], ""
    while True:
        page = await auth.stub.ListInvitations(
            pb.ListInvitationsRequest(organization_id=str(acme.organization_id), page_size=2, page_token=token),
            metadata=auth.person(acme.owner_id, acme.organization_id),
        )
        seen += [each.email for each in page.invitations]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"p{number}@people.example" for number in (4, 3, 2, 1, 0)]


async def test_every_state_has_its_list(auth: Any, acme: SeededOrganization) -> None:
    await invite(auth, acme, "expired@people.example")
    await pass_time(auth, days=8)
    await invite(auth, acme, "pending@people.example")
    await seed_stranger(auth, "accepted@people.example")
    await cancel(auth, acme, (await invite(auth, acme, "cancelled@people.example")).invitation_id)
    await invite(auth, acme, "declined@people.example")
    await decline(auth, await newest_token(auth, "declined@people.example"))
    person = (await fetch(auth, "SELECT person_id FROM people WHERE email = 'accepted@people.example'"))[0][0]
    await invite(auth, acme, "accepted@people.example")
    await accept(auth, person, token=await newest_token(auth, "accepted@people.example"))
    states = {name: pb.InvitationState.Value(f"INVITATION_STATE_{name.upper()}") for name in
              ("pending", "accepted", "declined", "cancelled", "expired")}  # fmt: skip
    for name, number in states.items():
        assert await listed(auth, acme, number) == [f"{name}@people.example"]
    assert await listed(auth, acme) == ["pending@people.example"]
    request = pb.ListInvitationsRequest(organization_id=str(acme.organization_id), state=99)
    refused = await refusal(
        auth.stub.ListInvitations(request, metadata=auth.person(acme.owner_id, acme.organization_id))
    )
    assert [each.field for each in refused.violations] == ["state"]


async def test_another_tenant_finds_no_invitation(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    invitation = await invite(auth, acme)
    stranger = auth.person(other.owner_id, other.organization_id)
    for organization_id in (acme.organization_id, other.organization_id):
        fields = {"organization_id": str(organization_id), "invitation_id": invitation.invitation_id}
        missing = {**fields, "invitation_id": str(RandomIds().uuid7())}
        for rpc, message in (
            (auth.stub.CancelInvitation, pb.CancelInvitationRequest),
            (auth.stub.ResendInvitation, pb.ResendInvitationRequest),
        ):
            answers = [await refusal(rpc(message(**each), metadata=stranger)) for each in (fields, missing)]
            assert answers[0] == answers[1]
            assert answers[0].code is grpc.StatusCode.NOT_FOUND
    page = await auth.stub.ListInvitations(
        pb.ListInvitationsRequest(organization_id=str(other.organization_id)), metadata=stranger
    )
    assert not page.invitations
    assert await listed(auth, acme) == [EMAIL]


# Sending again, taking back


async def test_an_invitation_that_is_sent_again_has_another_token(auth: Any, acme: SeededOrganization) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme)
    first = await newest_token(auth, EMAIL)
    refused = await refusal(resend(auth, acme, invitation.invitation_id))
    assert refused.reason == "INVITATIONS_SENT_TOO_OFTEN"
    assert refused.retry_after_seconds is not None
    assert 0 < refused.retry_after_seconds <= 60
    await pass_time(auth, minutes=2)
    again = await resend(auth, acme, invitation.invitation_id)
    assert again.invitation_id == invitation.invitation_id
    assert again.expire_time.ToDatetime() >= invitation.expire_time.ToDatetime()
    second = await newest_token(auth, EMAIL)
    assert second != first
    assert (await refusal(accept(auth, person, token=first))).reason == "INVITATION_NOT_FOUND"
    assert (await refusal(decline(auth, first))).reason == "INVITATION_NOT_FOUND"
    assert (await accept(auth, person, token=second)).organization_id == str(acme.organization_id)
    assert len(await audited(auth, "invitation.resend")) == 1


async def test_sending_again_is_limited_by_the_day(auth: Any, acme: SeededOrganization) -> None:
    invitation = await invite(auth, acme)
    for _ in range(module.SENDS_PER_ADDRESS_AND_DAY_MAX - 1):
        await pass_time(auth, minutes=2)
        await resend(auth, acme, invitation.invitation_id)
    await pass_time(auth, minutes=2)
    assert (await refusal(resend(auth, acme, invitation.invitation_id))).reason == "INVITATIONS_SENT_TOO_OFTEN"


async def test_an_admin_does_not_send_an_owners_invitation_again(auth: Any, acme: SeededOrganization) -> None:
    adam = await seed_member(auth, acme.organization_id, "adam", "admin")
    invitation = await invite(auth, acme, EMAIL, OWNER)
    await pass_time(auth, minutes=2)
    metadata = auth.person(adam, acme.organization_id, "admin")
    assert (await refusal(resend(auth, acme, invitation.invitation_id, metadata))).reason == "ROLE_ABOVE_OWN"


async def test_an_invitation_that_was_taken_back_is_worth_nothing(auth: Any, acme: SeededOrganization) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    cancelled = await cancel(auth, acme, invitation.invitation_id)
    assert cancelled.state == pb.INVITATION_STATE_CANCELLED
    assert await cancel(auth, acme, invitation.invitation_id) == cancelled
    calls = [
        accept(auth, person, token=token),
        accept(auth, person, invitation_id=invitation.invitation_id),
        decline(auth, token),
        resend(auth, acme, invitation.invitation_id),
    ]
    assert [(await refusal(call)).reason for call in calls] == ["INVITATION_ENDED"] * 4
    assert person not in await members(auth, acme)
    (entry,) = await audited(auth, "invitation.cancel")
    assert (entry["before"]["state"], entry["after"]["state"]) == ("pending", "cancelled")


async def test_an_expired_invitation_is_worth_nothing_and_makes_room_for_another(
    auth: Any, acme: SeededOrganization
) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    await pass_time(auth, days=7)
    calls = [
        accept(auth, person, token=token),
        accept(auth, person, invitation_id=invitation.invitation_id),
        decline(auth, token),
        resend(auth, acme, invitation.invitation_id),
    ]
    refused = [await refusal(call) for call in calls]
    assert [each.reason for each in refused] == ["INVITATION_ENDED"] * 4
    assert {each.metadata["state"] for each in refused} == {"expired"}
    await invite(auth, acme)
    assert (await refusal(accept(auth, person, token=token))).reason == "INVITATION_ENDED"
    assert (await accept(auth, person, token=await newest_token(auth, EMAIL))).role == MEMBER


# Answering


@pytest.mark.parametrize("by", ["token", "invitation_id"])
async def test_an_invited_person_joins(auth: Any, acme: SeededOrganization, by: str) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme, EMAIL, ADMIN)
    mine = await auth.stub.ListMyInvitations(
        pb.ListMyInvitationsRequest(), metadata=auth.person(person, ELSEWHERE, "member")
    )
    assert list(mine.invitations) == [invitation]
    name = {"token": await newest_token(auth, EMAIL), "invitation_id": invitation.invitation_id}[by]
    membership = await accept(auth, person, **{by: name})
    assert (membership.organization_id, membership.organization_name) == (str(acme.organization_id), "acme")
    assert (membership.role, membership.organization_state) == (ADMIN, pb.ORGANIZATION_STATE_ACTIVE)
    assert (await members(auth, acme))[person] == "admin"
    assert await accept(auth, person, **{by: name}) == membership, "a repeated answer is answered as the first"
    mine = await auth.stub.ListMyInvitations(
        pb.ListMyInvitationsRequest(), metadata=auth.person(person, ELSEWHERE, "member")
    )
    assert not mine.invitations
    (entry,) = await audited(auth, "member.join")
    assert (entry["actor"], entry["after"]) == (str(person), {"role": "admin"})
    assert entry["details"] == {"invitation_id": invitation.invitation_id, "inviter_id": str(acme.owner_id)}
    (letter,) = await sent(auth, "member_joined")
    assert (letter.recipient, letter.facts["email"]) == ("contact@acme.example", EMAIL)


async def test_an_invitation_joins_the_invited_address_and_no_other(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_stranger(auth, "else@people.example")
    invitation = await invite(auth, acme)
    refused = await refusal(accept(auth, other, token=await newest_token(auth, EMAIL)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "INVITATION_FOR_ANOTHER")
    assert EMAIL not in repr(refused)
    by_id = await refusal(accept(auth, other, invitation_id=invitation.invitation_id))
    assert by_id == await refusal(accept(auth, other, invitation_id=str(RandomIds().uuid7())))
    assert by_id.reason == "INVITATION_NOT_FOUND"
    assert other not in await members(auth, acme)


@pytest.mark.parametrize("token", ["x", "A" * 43, "é" * 43, "A" * 1_000])
async def test_what_is_no_token_finds_nothing(auth: Any, acme: SeededOrganization, token: str) -> None:
    person = await seed_stranger(auth, EMAIL)
    assert (await refusal(accept(auth, person, token=token))).reason == "INVITATION_NOT_FOUND"
    assert (await refusal(decline(auth, token))).reason == "INVITATION_NOT_FOUND"


@pytest.mark.parametrize("fields", [{}, {"token": "A" * 43, "invitation_id": str(uuid.UUID(int=1))}])
async def test_an_invitation_is_named_in_one_way(auth: Any, acme: SeededOrganization, fields: dict[str, str]) -> None:
    refused = await refusal(accept(auth, acme.owner_id, **fields))
    assert [each.field for each in refused.violations] == ["token"]


async def test_a_declined_invitation_stays_declined(auth: Any, acme: SeededOrganization) -> None:
    person = await seed_stranger(auth, EMAIL)
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    await decline(auth, token)
    await decline(auth, token)
    assert (await refusal(accept(auth, person, token=token))).reason == "INVITATION_ENDED"
    assert (await refusal(cancel(auth, acme, invitation.invitation_id))).reason == "INVITATION_ENDED"
    (entry,) = await audited(auth, "invitation.decline")
    assert (entry["actor_kind"], entry["after"]["state"]) == ("anyone", "declined")
    assert (await invite(auth, acme)).state == pb.INVITATION_STATE_PENDING


async def test_several_who_race_on_one_invitation_get_one_membership(auth: Any, acme: SeededOrganization) -> None:
    person, other = await seed_stranger(auth, EMAIL), await seed_stranger(auth, "else@people.example")
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    answers = await asyncio.gather(
        *(accept(auth, each, token=token) for each in (person, other) for _ in range(8)),
        *(accept(auth, person, invitation_id=invitation.invitation_id) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, pb.Membership) for answer in answers) == 12
    assert set(await members(auth, acme)) == {acme.owner_id, person}
    assert len(await audited(auth, "member.join")) == 1
    assert len(await sent(auth, "member_joined")) == 1


async def test_of_an_acceptance_and_a_withdrawal_at_once_one_holds(auth: Any, acme: SeededOrganization) -> None:
    for number in range(6):
        email = f"p{number}@people.example"
        person = await seed_stranger(auth, email)
        invitation = await invite(auth, acme, email)
        token = await newest_token(auth, email)
        async with auth.db.system() as tx:
            await tx.execute("SELECT 1 FROM invitations WHERE invitation_id = $1 FOR UPDATE", invitation.invitation_id)
            answers = [
                asyncio.ensure_future(answer)
                for answer in (
                    accept(auth, person, token=token),
                    cancel(auth, acme, invitation.invitation_id),
                    decline(auth, token),
                )
            ]
            await until_waiting(auth, len(answers))
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        won = [not isinstance(outcome, BaseException) for outcome in outcomes]
        assert sum(won) == 1, won
        lost = {from_grpc(outcome).reason for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)}
        assert lost == {"INVITATION_ENDED"}
        assert (person in await members(auth, acme)) == won[0]


async def test_joining_a_deleted_organization_at_once_leaves_no_member(auth: Any, acme: SeededOrganization) -> None:
    person = await seed_stranger(auth, EMAIL)
    await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    request = pb.DeleteOrganizationRequest(organization_id=str(acme.organization_id), name="acme")
    deleted, _ = await asyncio.gather(
        auth.stub.DeleteOrganization(request, metadata=auth.person(acme.owner_id, acme.organization_id)),
        accept(auth, person, token=token),
        return_exceptions=True,
    )
    assert isinstance(deleted, pb.Organization)
    assert await members(auth, acme) == {}


async def test_what_was_answered_stays_answered_whoever_asks(auth: Any, acme: SeededOrganization) -> None:
    await cancel(auth, acme, (await invite(auth, acme)).invitation_id)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays so"):
        await execute(auth, "UPDATE invitations SET state = 'pending', answer_time = NULL")


async def test_the_daily_clean_up_removes_what_expired_a_month_ago(auth: Any, acme: SeededOrganization) -> None:
    for number in range(3):
        await cancel(auth, acme, (await invite(auth, acme, f"p{number}@people.example")).invitation_id)
    await pass_time(auth, days=40)
    await invite(auth, acme)
    clock = ManualClock(datetime.now(UTC) - timedelta(days=4))
    assert await module.remove_old(auth.db, clock) == 0
    assert await module.remove_old(auth.db, SystemClock()) == 3
    assert [row[0] for row in await fetch(auth, "SELECT email FROM invitations")] == [EMAIL]


# Registering


NEW_PASSWORD = "a pass phrase that nobody guesses"


def register(auth: Any, token: str, **fields: str) -> Any:
    request = {"token": token, "name": "Nia New", "password": NEW_PASSWORD, **fields}
    return auth.stub.RegisterByInvitation(pb.RegisterByInvitationRequest(**request))


async def test_who_has_no_account_registers_joins_and_is_signed_in(auth: Any, acme: SeededOrganization) -> None:
    await invite(auth, acme, EMAIL, ADMIN)
    token = await newest_token(auth, EMAIL)
    session = await register(auth, token)
    assert (session.organization_id, session.role) == (str(acme.organization_id), ADMIN)
    assert session.refresh_token
    me = await auth.stub.GetMe(pb.GetMeRequest(), metadata=[("authorization", f"Bearer {session.access_token}")])
    assert (me.person.email, me.person.name, me.person.person_id) == (EMAIL, "Nia New", session.person_id)
    assert [each.organization_name for each in me.person.memberships] == ["acme"]
    again = await auth.stub.CreateSession(pb.CreateSessionRequest(email=EMAIL, password=NEW_PASSWORD))
    assert again.person_id == session.person_id
    assert {
        entry["actor"] for action in ("person.register", "member.join") for entry in await audited(auth, action)
    } == {session.person_id}
    assert (await refusal(register(auth, token))).reason == "INVITATION_ENDED"


async def test_who_has_an_account_does_not_register_another(auth: Any, acme: SeededOrganization) -> None:
    person = await seed_stranger(auth, EMAIL)
    await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    refused = await refusal(register(auth, token))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS")
    assert (await accept(auth, person, token=token)).role == MEMBER


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": "short"}, "password"),
        ({"password": "p" * 201}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": EMAIL}, "password"),
        ({"name": ""}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"token": ""}, "token"),
    ],
)
async def test_a_wrong_registration_is_refused_by_field_and_the_invitation_stays_good(
    auth: Any, acme: SeededOrganization, fields: dict[str, str], field: str
) -> None:
    await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    refused = await refusal(register(auth, **{"token": token, **fields}))
    assert (refused.reason, [each.field for each in refused.violations]) == ("INVALID_FIELDS", [field])
    assert (await register(auth, token)).role == MEMBER


async def test_a_token_that_is_not_good_costs_no_hash(
    auth: Any, acme: SeededOrganization, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "hash_password", lambda password: hashed.append(password) or "")
    invitation = await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    await cancel(auth, acme, invitation.invitation_id)
    reasons = [(await refusal(register(auth, each))).reason for each in (token, "A" * 43, "x")]
    assert reasons == ["INVITATION_ENDED", "INVITATION_NOT_FOUND", "INVITATION_NOT_FOUND"]
    assert hashed == []


async def test_several_who_register_by_one_invitation_make_one_account(auth: Any, acme: SeededOrganization) -> None:
    await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    answers = await asyncio.gather(*(register(auth, token) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(answer, pb.CreateSessionResponse) for answer in answers) == 1
    assert len(await fetch(auth, "SELECT 1 FROM people WHERE email = $1", EMAIL)) == 1
    assert len(await members(auth, acme)) == 2


async def test_nobody_registers_into_an_organization_that_does_not_pay(auth: Any, acme: SeededOrganization) -> None:
    await invite(auth, acme)
    token = await newest_token(auth, EMAIL)
    await execute(auth, "UPDATE organizations SET restricted = true")
    assert (await refusal(register(auth, token))).reason == "ORGANIZATION_RESTRICTED"
    assert await fetch(auth, "SELECT 1 FROM people WHERE email = $1", EMAIL) == []


async def test_a_registration_that_a_stranger_began_for_the_address_ends(auth: Any, acme: SeededOrganization) -> None:
    await auth.stub.Register(
        pb.RegisterRequest(email=EMAIL, password="a stranger's pass phrase", name="X", organization_name="X")
    )
    await invite(auth, acme)
    await register(auth, await newest_token(auth, EMAIL))
    assert await fetch(auth, "SELECT 1 FROM registrations") == []
