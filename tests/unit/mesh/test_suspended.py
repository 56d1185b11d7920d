"""What people of a suspended organization may still do: it stands in the contract, RPC by RPC."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import descriptor_pb2
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.rpc import access
from mesh.rpc.access import Principal, PrincipalKind, Rule, read_rule, role_has

OWN, OTHER = UUID(int=1), UUID(int=2)
REVOCABLE = {access_pb2.CALLER_PERSON, access_pb2.CALLER_SERVICE_ACCOUNT}
RULES = [read_rule(method) for service in SERVICES.values() for method in service.descriptor.methods]
OF_MEMBERS = [rule for rule in RULES if rule.acts_on_caller or role_has(access_pb2.ROLE_OWNER, rule.permission or 0)]
KINDS = {
    access_pb2.CALLER_PERSON: PrincipalKind.PERSON,
    access_pb2.CALLER_SERVICE_ACCOUNT: PrincipalKind.SERVICE_ACCOUNT,
}


def name_of(rule: Rule) -> str:
    return str(rule.method.name)


def owner(kind: PrincipalKind = PrincipalKind.PERSON, **fields: Any) -> Principal:
    return Principal(
        **{"kind": kind, "organization_id": OWN, "role": access_pb2.ROLE_OWNER, "is_suspended": True, **fields}
    )


def request_of(rule: Rule, organization_id: UUID = OWN) -> Any:
    return SimpleNamespace(**{rule.tenant_field or "nothing": str(organization_id)})


@pytest.mark.parametrize("rule", OF_MEMBERS, ids=name_of)
def test_the_option_alone_decides(rule: Rule) -> None:
    for caller in REVOCABLE & rule.callers:
        access.authorize(rule, owner(KINDS[caller], is_suspended=False), request_of(rule))
        if rule.allowed_while_suspended:
            access.authorize(rule, owner(KINDS[caller]), request_of(rule))
        else:
            with pytest.raises(access.OrganizationSuspended):
                access.authorize(rule, owner(KINDS[caller]), request_of(rule))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.callers & REVOCABLE], ids=name_of)
def test_the_operators_people_are_never_locked_out(rule: Rule) -> None:
    for platform_role in (access_pb2.PLATFORM_ROLE_ADMIN, access_pb2.PLATFORM_ROLE_SUPPORT):
        operator = owner(platform_roles=(platform_role,))
        with contextlib.suppress(access.RoleInsufficient, access.CallerNotAllowed):
            access.authorize(rule, operator, request_of(rule))


def test_another_tenant_is_not_found_all_the_same() -> None:
    rule = next(rule for rule in RULES if rule.method.name == "CreateApiKey")
    with pytest.raises(access.OrganizationNotFound):
        access.authorize(rule, owner(), request_of(rule, OTHER))


@pytest.mark.parametrize("rule", OF_MEMBERS, ids=name_of)
def test_whoever_is_suspended_can_read_everything(rule: Rule) -> None:
    reads = rule.method.GetOptions().idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    assert rule.allowed_while_suspended or not reads


@pytest.mark.parametrize(
    "name",
    [
        "CreateSubscription",
        "PreviewInvoice",
        "QueryUsage",
        "RevokeApiKey",
        "RevokeServiceAccount",
        "RemoveMember",
        "ChangePassword",
        "RevokeAllSessions",
        "SwitchOrganization",
    ],
)
def test_whoever_is_suspended_can_pay_and_make_things_safer(name: str) -> None:
    assert next(rule for rule in RULES if rule.method.name == name).allowed_while_suspended


@pytest.mark.parametrize("name", ["CreateApiKey", "RotateApiKey", "CreateServiceAccount", "InviteMember"])
def test_nothing_new_comes_into_being(name: str) -> None:
    assert not next(rule for rule in RULES if rule.method.name == name).allowed_while_suspended
