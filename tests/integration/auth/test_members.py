"""Members are listed, change roles, are removed and leave; an organization keeps an owner."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.ids import RandomIds
from tests.support.accounts import PASSWORD, SeededOrganization, seed_organization
from tests.support.teams import (
    ROLES,
    audited,
    execute,
    fetch,
    refusal,
    seed_member,
    seed_service_account,
    sent,
)

OWNER, ADMIN, MEMBER = access_pb2.ROLE_OWNER, access_pb2.ROLE_ADMIN, access_pb2.ROLE_MEMBER


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def operator(auth: Any) -> Any:
    """What a platform admin calls with."""
    own = await seed_organization(auth.database.dsn("auth_system"), "operator")
    _, metadata = await seed_service_account(auth, own.organization_id, "owner", platform_role="platform_admin")
    return metadata


def change(auth: Any, acme: SeededOrganization, person_id: UUID, role: Any, metadata: Any = None, **fields: Any) -> Any:
    request = pb.ChangeMemberRoleRequest(
        organization_id=str(acme.organization_id), person_id=str(person_id), role=role, **fields
    )
    return auth.stub.ChangeMemberRole(request, metadata=metadata or auth.person(acme.owner_id, acme.organization_id))


def remove(auth: Any, acme: SeededOrganization, person_id: UUID, metadata: Any = None, **fields: Any) -> Any:
    request = pb.RemoveMemberRequest(organization_id=str(acme.organization_id), person_id=str(person_id), **fields)
    return auth.stub.RemoveMember(request, metadata=metadata or auth.person(acme.owner_id, acme.organization_id))


def leave(auth: Any, acme: SeededOrganization, person_id: UUID, role: str = "member", **fields: Any) -> Any:
    request = pb.LeaveOrganizationRequest(organization_id=str(acme.organization_id), **fields)
    return auth.stub.LeaveOrganization(request, metadata=auth.person(person_id, acme.organization_id, role))


async def roles(auth: Any, acme: SeededOrganization) -> dict[UUID, str]:
    rows = await fetch(auth, "SELECT person_id, role FROM memberships WHERE organization_id = $1", acme.organization_id)
    return {row["person_id"]: row["role"] for row in rows}


async def owners(auth: Any, acme: SeededOrganization) -> set[UUID]:
    return {person_id for person_id, role in (await roles(auth, acme)).items() if role == "owner"}


# Listing


async def test_members_are_listed_in_pages_the_first_joined_first(auth: Any, acme: SeededOrganization) -> None:
    people = [await seed_member(auth, acme.organization_id, f"p{number}", "member") for number in range(5)]
    # Two who joined at the same instant come one behind the other as well.
    await execute(
        auth, "UPDATE memberships SET create_time = '2024-01-01' WHERE person_id = ANY($1)", [people[4], people[2]]
    )
    metadata, seen, token = auth.person(people[0], acme.organization_id, "member"), [], ""
    while True:
        page = await auth.stub.ListMembers(
            pb.ListMembersRequest(organization_id=str(acme.organization_id), page_size=2, page_token=token),
            metadata=metadata,
        )
        seen += [(each.email, each.role) for each in page.members]
        token = page.next_page_token
        if not token:
            break
    expected = [f"p{number}@people.example" for number in (2, 4)]
    expected += [acme.email, *(f"p{number}@people.example" for number in (0, 1, 3))]
    assert [email for email, _ in seen] == expected
    assert dict(seen)[acme.email] == OWNER


async def test_a_member_is_shown_with_name_and_second_factor(auth: Any, acme: SeededOrganization) -> None:
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    await execute(auth, "UPDATE people SET name = 'Mia' WHERE person_id = $1", mia)
    await execute(
        auth,
        "INSERT INTO second_factors (person_id, data_key_version, secret, failure_time, create_time, confirm_time)"
        " VALUES ($1, 1, 'x', now(), now(), now()), ($2, 1, 'x', now(), now(), NULL)",
        mia,
        acme.owner_id,
    )
    page = await auth.stub.ListMembers(
        pb.ListMembersRequest(organization_id=str(acme.organization_id)),
        metadata=auth.person(mia, acme.organization_id, "member"),
    )
    assert [(each.name, each.second_factor) for each in page.members] == [("", False), ("Mia", True)]
    assert all(each.HasField("join_time") for each in page.members)


async def test_another_tenant_sees_no_member(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    metadata = auth.person(other.owner_id, other.organization_id)
    answers = [
        await refusal(auth.stub.ListMembers(pb.ListMembersRequest(organization_id=each), metadata=metadata))
        for each in (str(acme.organization_id), str(RandomIds().uuid7()))
    ]
    assert answers[0] == answers[1]
    assert answers[0].reason == "ORGANIZATION_NOT_FOUND"
    page = await auth.stub.ListMembers(
        pb.ListMembersRequest(organization_id=str(other.organization_id)), metadata=metadata
    )
    assert [each.email for each in page.members] == [other.email]


# Roles


async def test_an_owner_changes_a_role_and_the_person_is_told(auth: Any, acme: SeededOrganization) -> None:
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    changed = await change(auth, acme, mia, ADMIN)
    assert (changed.role, changed.email) == (ADMIN, "mia@people.example")
    assert (await roles(auth, acme))[mia] == "admin"
    (entry,) = await audited(auth, "member.change_role")
    assert (entry["before"], entry["after"]) == ({"role": "member"}, {"role": "admin"})
    assert (entry["resource"], entry["actor"]) == (f"person/{mia}", str(acme.owner_id))
    (letter,) = await sent(auth, "role_changed")
    assert (letter.recipient, letter.facts) == (
        "mia@people.example",
        {"organization_name": "acme", "role": "admin"},
    )
    assert await change(auth, acme, mia, ADMIN) == changed
    assert len(await audited(auth, "member.change_role")) == 1


async def test_a_replay_of_a_change_gets_the_first_answer(auth: Any, acme: SeededOrganization) -> None:
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    first = await change(auth, acme, mia, ADMIN, idempotency_key="k")
    await change(auth, acme, mia, MEMBER)
    assert await change(auth, acme, mia, ADMIN, idempotency_key="k") == first
    assert (await roles(auth, acme))[mia] == "member"


async def test_only_owners_change_roles(auth: Any, acme: SeededOrganization) -> None:
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    for role in ("admin", "member"):
        caller = await seed_member(auth, acme.organization_id, role, role)
        metadata = auth.person(caller, acme.organization_id, role)
        assert (await refusal(change(auth, acme, mia, ADMIN, metadata))).reason == "ROLE_INSUFFICIENT"
        _, machine = await seed_service_account(auth, acme.organization_id, role)
        assert (await refusal(change(auth, acme, mia, ADMIN, machine))).reason == "ROLE_INSUFFICIENT"
    _, machine = await seed_service_account(auth, acme.organization_id, "owner")
    assert (await change(auth, acme, mia, ADMIN, machine)).role == ADMIN


async def test_a_token_that_says_more_than_the_table_is_not_believed(auth: Any, acme: SeededOrganization) -> None:
    was_owner = await seed_member(auth, acme.organization_id, "was", "member")
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    gone = await seed_member(auth, acme.organization_id, "gone", "owner")
    await remove(auth, acme, gone)
    waiting = await auth.stub.InviteMember(
        pb.InviteMemberRequest(organization_id=str(acme.organization_id), email="w@b.example", role=MEMBER),
        metadata=auth.person(acme.owner_id, acme.organization_id),
    )
    for caller in (was_owner, gone):
        metadata = auth.person(caller, acme.organization_id, "owner")
        assert (await refusal(change(auth, acme, mia, ADMIN, metadata))).reason == "ROLE_INSUFFICIENT"
        assert (await refusal(remove(auth, acme, mia, metadata))).reason == "ROLE_INSUFFICIENT"
        own = str(acme.organization_id)
        new = pb.Organization(name="mine")
        calls = [
            auth.stub.InviteMember(
                pb.InviteMemberRequest(organization_id=own, email="a@b.example", role=MEMBER), metadata=metadata
            ),
            auth.stub.CancelInvitation(
                pb.CancelInvitationRequest(organization_id=own, invitation_id=waiting.invitation_id), metadata=metadata
            ),
            auth.stub.ResendInvitation(
                pb.ResendInvitationRequest(organization_id=own, invitation_id=waiting.invitation_id), metadata=metadata
            ),
            auth.stub.UpdateOrganization(
                pb.UpdateOrganizationRequest(
                    organization_id=own, organization=new, update_mask=FieldMask(paths=["name"])
                ),
                metadata=metadata,
            ),
            auth.stub.DeleteOrganization(
                pb.DeleteOrganizationRequest(organization_id=own, name="acme"), metadata=metadata
            ),
        ]
        assert [(await refusal(call)).reason for call in calls] == ["ROLE_INSUFFICIENT"] * 5


async def test_the_last_owner_stays_one(auth: Any, acme: SeededOrganization) -> None:
    await seed_member(auth, acme.organization_id, "adam", "admin")
    for call in (
        change(auth, acme, acme.owner_id, ADMIN),
        remove(auth, acme, acme.owner_id),
        leave(auth, acme, acme.owner_id, "owner"),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_OWNER")
    assert await owners(auth, acme) == {acme.owner_id}
    assert (await change(auth, acme, acme.owner_id, OWNER)).role == OWNER


async def test_the_operator_cannot_take_the_last_owner_either(
    auth: Any, acme: SeededOrganization, operator: Any
) -> None:
    assert (await refusal(change(auth, acme, acme.owner_id, MEMBER, operator))).reason == "LAST_OWNER"
    assert (await refusal(remove(auth, acme, acme.owner_id, operator))).reason == "LAST_OWNER"
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    assert (await change(auth, acme, mia, OWNER, operator)).role == OWNER
    await remove(auth, acme, acme.owner_id, operator)
    assert await owners(auth, acme) == {mia}


@pytest.mark.parametrize("how", ["demote", "remove", "leave", "each other"])
async def test_twenty_at_once_leave_an_owner(auth: Any, acme: SeededOrganization, how: str) -> None:
    second = await seed_member(auth, acme.organization_id, "second", "owner")
    pair = [acme.owner_id, second]
    tokens = {each: auth.person(each, acme.organization_id) for each in pair}
    _, machine = await seed_service_account(auth, acme.organization_id, "owner")

    def attempt(number: int) -> Any:
        person_id = pair[number % 2]
        match how:
            case "demote":
                return change(auth, acme, person_id, MEMBER, machine)
            case "remove":
                return remove(auth, acme, person_id, machine)
            case "leave":
                return leave(auth, acme, person_id, "owner")
            case _:
                return change(auth, acme, person_id, MEMBER, tokens[pair[1 - number % 2]])

    answers = await asyncio.gather(*(attempt(number) for number in range(20)), return_exceptions=True)
    assert len(await owners(auth, acme)) == 1
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in refused)
    assert {each.code() for each in refused} <= {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
    }
    assert len(answers) - len(refused) >= 1


# Removing and leaving


async def test_who_removes_whom(auth: Any, acme: SeededOrganization) -> None:
    callers = {
        role: await seed_member(auth, acme.organization_id, f"caller-{role}", role)
        for role in ("owner", "admin", "member")
    }
    for caller in ("owner", "admin", "member"):
        for target in ("owner", "admin", "member"):
            person_id = await seed_member(auth, acme.organization_id, f"{caller}-{target}", target)
            metadata = auth.person(callers[caller], acme.organization_id, caller)
            call = remove(auth, acme, person_id, metadata)
            if caller == "member":
                assert (await refusal(call)).reason == "ROLE_INSUFFICIENT"
            elif caller == "admin" and target != "member":
                assert (await refusal(call)).reason == "OWNERS_REMOVE_ADMINS"
            else:
                await call
                assert person_id not in await roles(auth, acme)


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
async def test_the_same_rules_hold_for_service_accounts(auth: Any, acme: SeededOrganization, role: str) -> None:
    _, machine = await seed_service_account(auth, acme.organization_id, role)
    admin = await seed_member(auth, acme.organization_id, "adam", "admin")
    member = await seed_member(auth, acme.organization_id, "mia", "member")
    if role == "member":
        assert (await refusal(remove(auth, acme, member, machine))).reason == "ROLE_INSUFFICIENT"
        return
    await remove(auth, acme, member, machine)
    if role == "admin":
        assert (await refusal(remove(auth, acme, admin, machine))).reason == "OWNERS_REMOVE_ADMINS"
    else:
        await remove(auth, acme, admin, machine)
        assert (await refusal(remove(auth, acme, acme.owner_id, machine))).reason == "LAST_OWNER"


async def test_a_revoked_service_account_acts_no_more(auth: Any, acme: SeededOrganization) -> None:
    account_id, machine = await seed_service_account(auth, acme.organization_id, "owner")
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    await change(auth, acme, mia, ADMIN, machine)
    await execute(auth, "UPDATE service_accounts SET revoke_time = now() WHERE service_account_id = $1", account_id)
    # The verifier may still know it for a second; the rules do not.
    refused = await refusal(change(auth, acme, mia, MEMBER, machine))
    assert refused.reason in {"ROLE_INSUFFICIENT", "CREDENTIALS_INVALID"}
    assert (await roles(auth, acme))[mia] == "admin"


async def test_a_removed_member_is_told_and_what_they_could_no_longer_do_ends(
    auth: Any, acme: SeededOrganization
) -> None:
    adam = await seed_member(auth, acme.organization_id, "adam", "admin")
    invite = pb.InviteMemberRequest(organization_id=str(acme.organization_id), email="a@b.example", role=ADMIN)
    invitation = await auth.stub.InviteMember(invite, metadata=auth.person(adam, acme.organization_id, "admin"))
    await remove(auth, acme, adam)
    assert [letter.recipient for letter in await sent(auth, "member_removed")] == ["adam@people.example"]
    (entry,) = await audited(auth, "member.remove")
    assert entry["before"] == {"role": "admin"}
    assert entry["details"] == {"cancelled_invitations": [invitation.invitation_id]}
    assert [row[0] for row in await fetch(auth, "SELECT state FROM invitations")] == ["cancelled"]
    assert (await refusal(remove(auth, acme, adam))).reason == "MEMBER_NOT_FOUND"


async def test_a_demotion_takes_back_what_was_above_the_new_role(auth: Any, acme: SeededOrganization) -> None:
    second = await seed_member(auth, acme.organization_id, "second", "owner")
    metadata = auth.person(second, acme.organization_id)
    for role in ROLES:
        invite = pb.InviteMemberRequest(
            organization_id=str(acme.organization_id), email=f"{role}@b.example", role=ROLES[role]
        )
        await auth.stub.InviteMember(invite, metadata=metadata)

    async def waiting() -> set[str]:
        return {row[0] for row in await fetch(auth, "SELECT role FROM invitations WHERE state = 'pending'")}

    await change(auth, acme, second, ADMIN)
    assert await waiting() == {"admin", "member"}
    await change(auth, acme, second, MEMBER)
    assert await waiting() == set()


async def test_a_member_leaves_and_is_none_any_more(auth: Any, acme: SeededOrganization) -> None:
    mia = await seed_member(auth, acme.organization_id, "mia", "member")
    await leave(auth, acme, mia, idempotency_key="k")
    assert mia not in await roles(auth, acme)
    (entry,) = await audited(auth, "member.leave")
    assert (entry["actor"], entry["before"]) == (str(mia), {"role": "member"})
    await leave(auth, acme, mia, idempotency_key="k")
    assert (await refusal(leave(auth, acme, mia))).reason == "MEMBER_NOT_FOUND"


async def test_an_owner_leaves_while_another_stays(auth: Any, acme: SeededOrganization) -> None:
    second = await seed_member(auth, acme.organization_id, "second", "owner")
    await leave(auth, acme, acme.owner_id, "owner")
    assert await owners(auth, acme) == {second}


async def test_nobody_is_found_who_is_no_member(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    answers = [
        await refusal(call)
        for person_id in (other.owner_id, RandomIds().uuid7())
        for call in (change(auth, acme, person_id, ADMIN), remove(auth, acme, person_id))
    ]
    assert {answer.reason for answer in answers} == {"MEMBER_NOT_FOUND"}
    assert answers[0] == answers[2]
    assert answers[1] == answers[3]


@pytest.mark.parametrize(
    ("fields", "field"), [({"person_id": "x"}, "person_id"), ({"role": 0}, "role"), ({"role": 99}, "role")]
)
async def test_a_wrong_change_of_role_is_refused_by_field(
    auth: Any, acme: SeededOrganization, fields: dict[str, Any], field: str
) -> None:
    request = pb.ChangeMemberRoleRequest(
        **{
            "organization_id": str(acme.organization_id),
            "person_id": str(acme.owner_id),
            "role": ADMIN,
            **fields,
        }
    )
    metadata = auth.person(acme.owner_id, acme.organization_id)
    refused = await refusal(auth.stub.ChangeMemberRole(request, metadata=metadata))
    assert [each.field for each in refused.violations] == [field]


async def test_whoever_is_removed_or_leaves_loses_their_sessions_there_and_nowhere_else(
    auth: Any, acme: SeededOrganization
) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    second = await seed_member(auth, acme.organization_id, "second", "owner")
    for person_id in (acme.owner_id, second):
        await execute(
            auth,
            "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, 'member', now())",
            other.organization_id,
            person_id,
        )
    sessions = {
        (email, organization_id): await auth.stub.CreateSession(
            pb.CreateSessionRequest(email=email, password=PASSWORD, organization_id=str(organization_id))
        )
        for email in (acme.email, "second@people.example")
        for organization_id in (acme.organization_id, other.organization_id)
    }
    await remove(auth, acme, second)
    request = pb.RefreshSessionRequest
    gone = sessions["second@people.example", acme.organization_id]
    ended = await fetch(auth, "SELECT session_id::text, revoke_reason FROM sessions WHERE revoke_time IS NOT NULL")
    assert [tuple(row) for row in ended] == [(gone.session_id, "membership_ended")]
    assert (await refusal(auth.stub.RefreshSession(request(refresh_token=gone.refresh_token)))).reason == (
        "REFRESH_REFUSED"
    )
    for key, session in sessions.items():
        if session is not gone:
            renewed = await auth.stub.RefreshSession(request(refresh_token=session.refresh_token))
            assert renewed.organization_id == str(key[1])
