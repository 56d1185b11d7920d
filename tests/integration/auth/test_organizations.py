"""Organizations are made, changed, listed, suspended and deleted."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.ids import RandomIds
from services.auth.organizations import ORGANIZATIONS_OWNED_MAX
from tests.support.accounts import PASSWORD, SeededOrganization, seed_key, seed_organization
from tests.support.teams import (
    audited,
    execute,
    fetch,
    newest_token,
    refusal,
    seed_member,
    seed_service_account,
    seed_stranger,
    sent,
)

ACTIVE, SUSPENDED = pb.ORGANIZATION_STATE_ACTIVE, pb.ORGANIZATION_STATE_SUSPENDED
DELETED = pb.ORGANIZATION_STATE_DELETED
EDGE = "edge_proxy"


@pytest.fixture
async def acme(auth: Any) -> SeededOrganization:
    return await seed_organization(auth.database.dsn("auth_system"), "acme")


@pytest.fixture
async def operator(auth: Any) -> Any:
    """What a platform admin calls with, from the operator's own organization."""
    own = await seed_organization(auth.database.dsn("auth_system"), "operator")
    _, metadata = await seed_service_account(auth, own.organization_id, "owner", platform_role="platform_admin")
    return own, metadata


async def create(auth: Any, owner: SeededOrganization, **fields: Any) -> pb.Organization:
    request = pb.CreateOrganizationRequest(**{"name": "Second", **fields})
    metadata = auth.person(owner.owner_id, owner.organization_id, "member")
    answer: pb.Organization = await auth.stub.CreateOrganization(request, metadata=metadata)
    return answer


# Making


async def test_whoever_makes_an_organization_owns_it(auth: Any, acme: SeededOrganization) -> None:
    made = await create(
        auth, acme, contact_email="Team@Second.example", currency_code="EUR", time_zone="Europe/Berlin",
        metadata={"a": "b"},
    )  # fmt: skip
    assert (made.name, made.state, made.currency_code, made.time_zone) == ("Second", ACTIVE, "EUR", "Europe/Berlin")
    assert (made.contact_email, made.billing_email) == ("team@second.example", "team@second.example")
    assert dict(made.metadata) == {"a": "b"}
    assert uuid.UUID(made.organization_id).version == 7
    rows = await fetch(auth, "SELECT person_id, role FROM memberships WHERE organization_id = $1", made.organization_id)
    assert [tuple(row) for row in rows] == [(acme.owner_id, "owner")]
    (entry,) = await audited(auth, "organization.create")
    assert (str(entry["organization_id"]), entry["actor"]) == (made.organization_id, str(acme.owner_id))
    assert entry["after"]["name"] == "Second"
    assert entry["after"]["owner_id"] == str(acme.owner_id)


async def test_the_makers_address_is_the_contact_unless_an_organization_has_it(
    auth: Any, acme: SeededOrganization
) -> None:
    first, second = await create(auth, acme), await create(auth, acme)
    assert (first.contact_email, first.billing_email) == (acme.email, acme.email)
    assert (second.contact_email, second.billing_email) == ("", acme.email)
    assert (first.currency_code, first.time_zone) == ("USD", "UTC")


async def test_a_contact_address_that_is_taken_is_told_and_not_whose_it_is(auth: Any, acme: SeededOrganization) -> None:
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    refused = await refusal(create(auth, acme, contact_email="Contact@OTHER.example"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CONTACT_EMAIL_TAKEN")
    assert str(other.organization_id) not in repr(refused)
    assert not refused.metadata


async def test_a_replay_makes_one_organization(auth: Any, acme: SeededOrganization) -> None:
    first = await create(auth, acme, idempotency_key="k")
    assert await create(auth, acme, idempotency_key="k") == first
    assert (await refusal(create(auth, acme, name="Else", idempotency_key="k"))).reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_person_owns_so_many_organizations_however_parallel(auth: Any, acme: SeededOrganization) -> None:
    room = 3
    for _ in range(ORGANIZATIONS_OWNED_MAX - 1 - room):
        await create(auth, acme)
    answers = await asyncio.gather(*(create(auth, acme) for _ in range(room + 4)), return_exceptions=True)
    assert sum(isinstance(answer, pb.Organization) for answer in answers) == room
    assert (await refusal(create(auth, acme))).reason == "ORGANIZATION_LIMIT_REACHED"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"contact_email": "nobody"}, "contact_email"),
        ({"billing_email": "a@b"}, "billing_email"),
        ({"currency_code": "XYZ"}, "currency_code"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"idempotency_key": "k" * 129}, "idempotency_key"),
    ],
)
async def test_a_wrong_organization_is_refused_by_field(
    auth: Any, acme: SeededOrganization, fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(create(auth, acme, **fields))
    assert (refused.reason, [each.field for each in refused.violations]) == ("INVALID_FIELDS", [field])


async def test_all_that_is_wrong_is_told_at_once(auth: Any, acme: SeededOrganization) -> None:
    refused = await refusal(create(auth, acme, name="", contact_email="x", currency_code="x", time_zone="x"))
    assert {each.field for each in refused.violations} == {"name", "contact_email", "currency_code", "time_zone"}


async def test_an_operator_makes_an_organization_and_its_owner_is_invited(auth: Any, operator: Any) -> None:
    _, metadata = operator
    request = pb.ProvisionOrganizationRequest(
        name="Customer", owner_email="Boss@Customer.example", external_id="crm-7", idempotency_key="k"
    )
    made = await auth.stub.ProvisionOrganization(request, metadata=metadata)
    assert await auth.stub.ProvisionOrganization(request, metadata=metadata) == made
    assert (made.external_id, made.contact_email) == ("crm-7", "boss@customer.example")
    (letter,) = await sent(auth, "invitation")
    assert letter.recipient == "boss@customer.example"
    assert (letter.facts["organization_name"], letter.facts["role"]) == ("Customer", "owner")
    assert letter.facts["inviter_name"] == "Tollway"
    boss = await seed_stranger(auth, "boss@customer.example")
    membership = await auth.stub.AcceptInvitation(
        pb.AcceptInvitationRequest(token=await newest_token(auth, "boss@customer.example")),
        metadata=auth.person(boss, uuid.UUID(int=1)),
    )
    assert (membership.organization_id, membership.role) == (made.organization_id, access_pb2.ROLE_OWNER)


async def test_an_external_id_is_one_organizations(auth: Any, operator: Any) -> None:
    _, metadata = operator

    async def provision(number: int, external_id: str) -> pb.Organization:
        request = pb.ProvisionOrganizationRequest(
            name="Customer", owner_email=f"boss{number}@customer.example", external_id=external_id
        )
        answer: pb.Organization = await auth.stub.ProvisionOrganization(request, metadata=metadata)
        return answer

    await provision(1, "crm-7")
    refused = await refusal(provision(2, "crm-7"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "EXTERNAL_ID_TAKEN")
    await provision(3, "")
    await provision(4, "")


async def test_only_operators_provision_and_list_and_suspend(auth: Any, acme: SeededOrganization) -> None:
    owner = auth.person(acme.owner_id, acme.organization_id)
    own = str(acme.organization_id)
    calls = [
        auth.stub.ProvisionOrganization(
            pb.ProvisionOrganizationRequest(name="x", owner_email="a@b.example"), metadata=owner
        ),
        auth.stub.ListOrganizations(pb.ListOrganizationsRequest(), metadata=owner),
        auth.stub.SuspendOrganization(pb.SuspendOrganizationRequest(organization_id=own, reason="x"), metadata=owner),
        auth.stub.ResumeOrganization(pb.ResumeOrganizationRequest(organization_id=own, reason="x"), metadata=owner),
    ]
    assert [(await refusal(call)).reason for call in calls] == ["ROLE_INSUFFICIENT"] * 4


# Changing


async def update(auth: Any, acme: SeededOrganization, paths: list[str], role: str = "admin", **fields: Any) -> Any:
    member = await seed_member(auth, acme.organization_id, uuid.uuid4().hex, role)
    key = fields.pop("idempotency_key", "")
    request = pb.UpdateOrganizationRequest(
        organization_id=str(acme.organization_id),
        organization=pb.Organization(**fields),
        update_mask=FieldMask(paths=paths),
        idempotency_key=key,
    )
    return await auth.stub.UpdateOrganization(request, metadata=auth.person(member, acme.organization_id, role))


async def test_what_the_mask_names_changes_and_nothing_else(auth: Any, acme: SeededOrganization) -> None:
    changed = await update(
        auth, acme, ["name", "currency_code", "metadata"], name="Acme & Sons", currency_code="JPY",
        time_zone="Asia/Tokyo", metadata={"x": "y"},
    )  # fmt: skip
    assert (changed.name, changed.currency_code, changed.time_zone) == ("Acme & Sons", "JPY", "UTC")
    assert dict(changed.metadata) == {"x": "y"}
    assert changed.contact_email == "contact@acme.example"
    shown = await auth.stub.GetOrganization(
        pb.GetOrganizationRequest(organization_id=str(acme.organization_id)),
        metadata=auth.person(acme.owner_id, acme.organization_id),
    )
    assert shown == changed
    (entry,) = await audited(auth, "organization.update")
    assert entry["before"] == {"name": "acme", "currency_code": "USD", "metadata": {"tier": "gold"}}
    assert entry["after"] == {"name": "Acme & Sons", "currency_code": "JPY", "metadata": {"x": "y"}}


async def test_a_change_that_changes_nothing_is_no_entry(auth: Any, acme: SeededOrganization) -> None:
    await update(auth, acme, ["name", "time_zone"], name="acme", time_zone="UTC")
    assert await audited(auth, "organization.update") == []


@pytest.mark.parametrize(
    ("paths", "fields", "field"),
    [
        ([], {"name": "x"}, "update_mask"),
        (["state"], {"state": ACTIVE}, "update_mask"),
        (["plan_id"], {"plan_id": "pro"}, "update_mask"),
        (["external_id"], {"external_id": "x"}, "update_mask"),
        (["name", "nonsense"], {"name": "x"}, "update_mask"),
        (["name"], {}, "organization.name"),
        (["contact_email"], {}, "organization.contact_email"),
        (["billing_email"], {"billing_email": "x"}, "organization.billing_email"),
        (["currency_code"], {}, "organization.currency_code"),
        (["time_zone"], {}, "organization.time_zone"),
        (["metadata"], {"metadata": {"k": "v" * 501}}, "organization.metadata"),
        (["name"], {"name": "x", "organization_id": str(uuid.UUID(int=7))}, "organization.organization_id"),
    ],
)
async def test_a_wrong_change_is_refused_by_field(
    auth: Any, acme: SeededOrganization, paths: list[str], fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(update(auth, acme, paths, **fields))
    assert (refused.reason, [each.field for each in refused.violations]) == ("INVALID_FIELDS", [field])


async def test_a_change_to_a_taken_contact_is_refused(auth: Any, acme: SeededOrganization) -> None:
    await seed_organization(auth.database.dsn("auth_system"), "other")
    refused = await refusal(update(auth, acme, ["contact_email"], contact_email="contact@other.example"))
    assert refused.reason == "CONTACT_EMAIL_TAKEN"
    assert (await update(auth, acme, ["contact_email"], contact_email="contact@acme.example")).contact_email


async def test_changes_at_once_keep_each_other(auth: Any, acme: SeededOrganization) -> None:
    await asyncio.gather(
        update(auth, acme, ["name"], name="New"),
        update(auth, acme, ["currency_code"], currency_code="CHF"),
        update(auth, acme, ["time_zone"], time_zone="Europe/Zurich"),
    )
    (row,) = await fetch(auth, "SELECT name, currency_code, time_zone FROM organizations")
    assert tuple(row) == ("New", "CHF", "Europe/Zurich")


async def test_members_change_nothing_and_strangers_find_nothing(auth: Any, acme: SeededOrganization) -> None:
    assert (await refusal(update(auth, acme, ["name"], role="member", name="x"))).reason == "ROLE_INSUFFICIENT"
    other = await seed_organization(auth.database.dsn("auth_system"), "other")
    requests = [
        pb.UpdateOrganizationRequest(
            organization_id=organization_id,
            organization=pb.Organization(name="x"),
            update_mask=FieldMask(paths=["name"]),
        )
        for organization_id in (str(acme.organization_id), str(RandomIds().uuid7()))
    ]
    metadata = auth.person(other.owner_id, other.organization_id)
    answers = [await refusal(auth.stub.UpdateOrganization(request, metadata=metadata)) for request in requests]
    assert answers[0] == answers[1]
    assert answers[0].reason == "ORGANIZATION_NOT_FOUND"


# Listing


async def test_operators_list_all_in_pages_newest_first(auth: Any, acme: SeededOrganization, operator: Any) -> None:
    _, metadata = operator
    for number in range(5):
        await create(auth, acme, name=f"number {number}")
    names: list[str] = []
    token = ""
    while True:
        page = await auth.stub.ListOrganizations(
            pb.ListOrganizationsRequest(page_size=2, page_token=token), metadata=metadata
        )
        assert len(page.organizations) <= 2
        names += [each.name for each in page.organizations]
        token = page.next_page_token
        if not token:
            break
    assert names == ["number 4", "number 3", "number 2", "number 1", "number 0", "operator", "acme"]


async def test_operators_find_by_name_state_and_external_id(auth: Any, acme: SeededOrganization, operator: Any) -> None:
    _, metadata = operator
    odd, plain = [await create(auth, acme, name=name) for name in ("100%_sure \\", "1000 sure")]
    await execute(auth, "UPDATE organizations SET external_id = 'x' WHERE organization_id = $1", plain.organization_id)
    await execute(auth, "UPDATE organizations SET suspended = true WHERE organization_id = $1", odd.organization_id)

    async def found(**fields: Any) -> list[str]:
        page = await auth.stub.ListOrganizations(pb.ListOrganizationsRequest(**fields), metadata=metadata)
        return [each.name for each in page.organizations]

    assert await found(name_contains="0%_S") == ["100%_sure \\"]
    assert await found(name_contains="sure") == ["1000 sure", "100%_sure \\"]
    assert await found(name_contains="e \\") == ["100%_sure \\"]
    assert await found(state=SUSPENDED) == ["100%_sure \\"]
    assert await found(external_id="x") == ["1000 sure"]
    assert await found(external_id="y") == []
    await execute(
        auth,
        "UPDATE organizations SET state = 'deleted', delete_time = now() WHERE organization_id = $1",
        plain.organization_id,
    )
    assert await found(name_contains="sure") == ["100%_sure \\"]
    assert await found(state=DELETED) == ["1000 sure"]


async def test_a_page_token_of_another_list_is_refused(auth: Any, acme: SeededOrganization, operator: Any) -> None:
    _, metadata = operator
    page = await auth.stub.ListOrganizations(pb.ListOrganizationsRequest(page_size=1), metadata=metadata)
    request = pb.ListOrganizationsRequest(page_size=1, page_token=page.next_page_token, name_contains="a")
    refused = await refusal(auth.stub.ListOrganizations(request, metadata=metadata))
    assert [each.field for each in refused.violations] == ["page_token"]
    refused = await refusal(auth.stub.ListOrganizations(pb.ListOrganizationsRequest(state=99), metadata=metadata))
    assert [each.field for each in refused.violations] == ["state"]


# Suspending


async def test_an_operator_suspends_and_resumes_and_the_contact_is_told(
    auth: Any, acme: SeededOrganization, operator: Any
) -> None:
    _, metadata = operator
    own = str(acme.organization_id)
    suspend = pb.SuspendOrganizationRequest(organization_id=own, reason="abuse of the service")
    suspended = await auth.stub.SuspendOrganization(suspend, metadata=metadata)
    assert (suspended.state, suspended.suspend_reason) == (SUSPENDED, "abuse of the service")
    assert await auth.stub.SuspendOrganization(suspend, metadata=metadata) == suspended
    (letter,) = await sent(auth, "organization_suspended")
    assert letter.recipient == "contact@acme.example"
    assert letter.facts == {"organization_name": "acme", "reason": "abuse of the service"}
    resume = pb.ResumeOrganizationRequest(organization_id=own, reason="settled")
    resumed = await auth.stub.ResumeOrganization(resume, metadata=metadata)
    assert (resumed.state, resumed.suspend_reason) == (ACTIVE, "")
    assert await auth.stub.ResumeOrganization(resume, metadata=metadata) == resumed
    assert [letter.recipient for letter in await sent(auth, "organization_resumed")] == ["contact@acme.example"]
    (entry,) = await audited(auth, "organization.suspend")
    assert entry["before"] == {"state": "active", "suspend_reason": ""}
    assert entry["after"] == {"state": "suspended", "suspend_reason": "abuse of the service"}
    (entry,) = await audited(auth, "organization.resume")
    assert entry["details"] == {"reason": "settled"}


async def test_an_operator_does_not_lift_what_billing_has_laid_down(
    auth: Any, acme: SeededOrganization, operator: Any
) -> None:
    _, metadata = operator
    own = str(acme.organization_id)
    await execute(auth, "UPDATE organizations SET suspended = true WHERE organization_id = $1", own)
    await auth.stub.SuspendOrganization(
        pb.SuspendOrganizationRequest(organization_id=own, reason="abuse"), metadata=metadata
    )
    resumed = await auth.stub.ResumeOrganization(
        pb.ResumeOrganizationRequest(organization_id=own, reason="settled"), metadata=metadata
    )
    assert (resumed.state, resumed.suspend_reason) == (SUSPENDED, "An invoice has not been paid for too long.")
    assert await sent(auth, "organization_resumed") == []


async def test_operators_do_not_lock_themselves_out(auth: Any, operator: Any) -> None:
    own, metadata = operator
    organization_id = str(own.organization_id)
    suspend = pb.SuspendOrganizationRequest(organization_id=organization_id, reason="oops")
    assert (await refusal(auth.stub.SuspendOrganization(suspend, metadata=metadata))).reason == "ORGANIZATION_IS_OWN"
    delete = pb.DeleteOrganizationRequest(organization_id=organization_id, name="operator")
    assert (await refusal(auth.stub.DeleteOrganization(delete, metadata=metadata))).reason == "ORGANIZATION_IS_OWN"


@pytest.mark.parametrize("reason", ["", "r" * 501, "a\nb"])
async def test_a_reason_is_asked_for(auth: Any, acme: SeededOrganization, operator: Any, reason: str) -> None:
    _, metadata = operator
    own = str(acme.organization_id)
    for call in (
        auth.stub.SuspendOrganization(
            pb.SuspendOrganizationRequest(organization_id=own, reason=reason), metadata=metadata
        ),
        auth.stub.ResumeOrganization(
            pb.ResumeOrganizationRequest(organization_id=own, reason=reason), metadata=metadata
        ),
    ):
        assert [each.field for each in (await refusal(call)).violations] == ["reason"]


# Deleting


async def delete(auth: Any, acme: SeededOrganization, **fields: Any) -> pb.Organization:
    request = pb.DeleteOrganizationRequest(organization_id=str(acme.organization_id), **{"name": "acme", **fields})
    answer: pb.Organization = await auth.stub.DeleteOrganization(
        request, metadata=auth.person(acme.owner_id, acme.organization_id)
    )
    return answer


async def test_deleting_ends_all_that_acts_and_keeps_the_audit_log(
    auth: Any, acme: SeededOrganization, operator: Any
) -> None:
    dsn = auth.database.dsn("auth_system")
    _, operators = operator
    own = str(acme.organization_id)
    owner = auth.person(acme.owner_id, acme.organization_id)
    member = await seed_member(auth, acme.organization_id, "mia", "member")
    _, digest = await seed_key(dsn, acme.organization_id, acme.owner_id)
    _, machine = await seed_service_account(auth, acme.organization_id, "admin")
    invite = pb.InviteMemberRequest(organization_id=own, email="new@people.example", role=access_pb2.ROLE_MEMBER)
    await auth.stub.InviteMember(invite, metadata=owner)
    session = await auth.stub.CreateSession(pb.CreateSessionRequest(email=acme.email, password=PASSWORD))
    deleted = await delete(auth, acme)
    refresh = pb.RefreshSessionRequest(refresh_token=session.refresh_token)
    assert (await refusal(auth.stub.RefreshSession(refresh))).reason == "REFRESH_REFUSED"
    sign_in = pb.CreateSessionRequest(email=acme.email, password=PASSWORD)
    assert (await refusal(auth.stub.CreateSession(sign_in))).reason == "MEMBERSHIP_MISSING"
    assert deleted.state == DELETED
    assert deleted.HasField("delete_time")
    assert (deleted.name, deleted.contact_email, deleted.external_id) == ("acme", "", "")
    (grant,) = (
        await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[digest]), metadata=auth.process(EDGE))
    ).grants
    assert grant.state == pb.KEY_STATE_REVOKED
    assert (await refusal(auth.stub.ListApiKeys(pb.ListApiKeysRequest(organization_id=own), metadata=machine))).reason
    assert await fetch(auth, "SELECT 1 FROM memberships WHERE organization_id = $1", own) == []
    assert [row[0] for row in await fetch(auth, "SELECT state FROM invitations")] == ["cancelled"]
    (entry,) = await audited(auth, "organization.delete")
    assert entry["before"]["contact_email"] == "contact@acme.example"
    assert (entry["before"]["state"], entry["after"]["state"]) == ("active", "deleted")
    assert (entry["details"]["api_keys"], entry["details"]["service_accounts"], entry["details"]["invitations"]) == (
        1,
        1,
        1,
    )
    assert set(entry["details"]["member_ids"]) == {str(acme.owner_id), str(member)}
    log = await auth.stub.ListAuditEntries(pb.ListAuditEntriesRequest(organization_id=own), metadata=operators)
    assert {each.action for each in log.audit_entries} == {"organization.delete", "invitation.create", "session.create"}


async def test_what_an_organization_was_called_is_free_again(
    auth: Any, acme: SeededOrganization, operator: Any
) -> None:
    _, metadata = operator
    await execute(
        auth, "UPDATE organizations SET external_id = 'crm-7' WHERE organization_id = $1", acme.organization_id
    )
    await delete(auth, acme)
    request = pb.ProvisionOrganizationRequest(name="acme", owner_email="contact@acme.example", external_id="crm-7")
    made = await auth.stub.ProvisionOrganization(request, metadata=metadata)
    assert (made.contact_email, made.external_id) == ("contact@acme.example", "crm-7")


async def test_nothing_comes_of_a_wrong_name(auth: Any, acme: SeededOrganization) -> None:
    for name in ("Acme", "acme ", "other", ""):
        refused = await refusal(delete(auth, acme, name=name))
        assert (refused.reason, [each.field for each in refused.violations]) == ("INVALID_FIELDS", ["name"])
    assert [row[0] for row in await fetch(auth, "SELECT state FROM organizations")] == ["active"]


async def test_deleting_again_answers_the_same(auth: Any, acme: SeededOrganization, operator: Any) -> None:
    _, metadata = operator
    first = await delete(auth, acme)
    request = pb.DeleteOrganizationRequest(organization_id=str(acme.organization_id), name="acme")
    assert await auth.stub.DeleteOrganization(request, metadata=metadata) == first
    assert len(await audited(auth, "organization.delete")) == 1


async def test_only_owners_delete(auth: Any, acme: SeededOrganization) -> None:
    admin = await seed_member(auth, acme.organization_id, "adam", "admin")
    request = pb.DeleteOrganizationRequest(organization_id=str(acme.organization_id), name="acme")
    metadata = auth.person(admin, acme.organization_id, "admin")
    assert (await refusal(auth.stub.DeleteOrganization(request, metadata=metadata))).reason == "ROLE_INSUFFICIENT"


async def test_nothing_is_done_to_a_deleted_organization(auth: Any, acme: SeededOrganization, operator: Any) -> None:
    _, metadata = operator
    await delete(auth, acme)
    own = str(acme.organization_id)
    calls = [
        auth.stub.SuspendOrganization(
            pb.SuspendOrganizationRequest(organization_id=own, reason="x"), metadata=metadata
        ),
        auth.stub.ResumeOrganization(pb.ResumeOrganizationRequest(organization_id=own, reason="x"), metadata=metadata),
        auth.stub.UpdateOrganization(
            pb.UpdateOrganizationRequest(
                organization_id=own, organization=pb.Organization(name="x"), update_mask=FieldMask(paths=["name"])
            ),
            metadata=metadata,
        ),
        auth.stub.InviteMember(
            pb.InviteMemberRequest(organization_id=own, email="a@b.example", role=access_pb2.ROLE_MEMBER),
            metadata=metadata,
        ),
    ]
    assert [(await refusal(call)).reason for call in calls] == ["ORGANIZATION_NOT_FOUND"] * 4
    shown = await auth.stub.GetOrganization(pb.GetOrganizationRequest(organization_id=own), metadata=metadata)
    assert shown.state == DELETED
