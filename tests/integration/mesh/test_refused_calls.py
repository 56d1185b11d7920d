"""A refused call writes nothing: every RPC with its real handler, a valid request, and everybody who may not call it.

The requests come from the descriptors, so an RPC that is written later is covered without a line here. The second test
sends the same kinds of requests from callers who may: they are taken and they write. So what the first test compares is
not a database that such requests could never change.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import asyncpg
import grpc
import pytest
import redis
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.rpc.access import Rule, platform_role_has, read_rule, role_has
from tests.support.all_services import AllServices, Tenant, all_services, process
from tests.support.audit_page import documented
from tests.support.database_state import changes, contents
from tests.support.machine_tokens import machine_token
from tests.support.processes import NAMES
from tests.support.valid_requests import valid

ROLES = {"owner": access_pb2.ROLE_OWNER, "admin": access_pb2.ROLE_ADMIN, "member": access_pb2.ROLE_MEMBER}
PLATFORM = {
    name.removeprefix("PLATFORM_ROLE_").lower(): number for name, number in access_pb2.PlatformRole.items() if number
}
INVALID = {"garbage", "twice"}
REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
}
METHODS = [(name, method) for name, service in SERVICES.items() for method in service.descriptor.methods]
READS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


@pytest.fixture
async def services(database: Any, redis_url: str) -> Any:
    async with all_services(database, redis_url) as running:
        yield running


@pytest.fixture
async def admin(database: Any) -> Any:
    connection = await asyncpg.connect(database.dsn("admin"))
    yield connection
    await connection.close()


def known_of(tenant: Tenant) -> dict[str, Any]:
    """The ids of what a tenant has."""
    return {
        "organization_id": str(tenant.id),
        "api_key_id": str(tenant.api_key_id),
        "person_id": str(tenant.people["member"]),
        "creator_id": str(tenant.people["owner"]),
        "service_account_id": str(tenant.service_accounts["member"]),
    }


def everybody(services: AllServices, own: Tenant, other: Tenant, service: str) -> Any:
    """Yields (who, metadata, kind of caller, role, platform role, process, whether of the tenant that is named)."""
    kinds = access_pb2
    yield "anonymous", [], 0, None, None, "", False
    yield "garbage", [("authorization", "Bearer a.b.c")], 0, None, None, "", False
    yield "twice", services.person(own.people["owner"], own.id, "owner") * 2, 0, None, None, "", False
    for role, (whose, tenant) in itertools.product(ROLES, (("own", own), ("other", other))):
        is_own = tenant is own
        person = services.person(tenant.people[role], tenant.id, role)
        yield f"{whose} {role}", person, kinds.CALLER_PERSON, role, None, "", is_own
        machine = [("authorization", f"Bearer {machine_token(f'{whose} {role}')}")]
        yield f"{whose} machine {role}", machine, kinds.CALLER_SERVICE_ACCOUNT, role, None, "", is_own
    for role in PLATFORM:
        person = services.person(other.people["member"], other.id, "member", role)
        yield f"platform {role}", person, kinds.CALLER_PERSON, "member", role, "", False
    for name in NAMES:
        yield name, process(name, service), kinds.CALLER_PROCESS, None, None, name, False


def may(rule: Rule, kind: int, role: str | None, platform_role: str | None, process_name: str, *, is_own: bool) -> bool:
    """Whether a call is allowed; that this is what the design says is the matter of `test_access_matrix.py`."""
    if access_pb2.CALLER_ANYONE in rule.callers:
        return True
    if kind not in rule.callers:
        return False
    if kind == access_pb2.CALLER_PROCESS:
        return process_name in rule.processes
    if rule.acts_on_caller:
        return True
    if platform_role and platform_role_has([PLATFORM[platform_role]], rule.permission):
        return True
    return role is not None and role_has(ROLES[role], rule.permission) and (is_own or not rule.tenant_field)


async def test_a_refused_call_writes_nothing(services: AllServices, admin: Any, redis_url: str) -> None:
    own, other = await services.seed_tenant("own"), await services.seed_tenant("other")
    before = await contents(admin)
    keys_before = stored_in_redis(redis_url)
    wrong, count = [], 0
    for service, method in METHODS:
        rule = read_rule(method)
        request = valid(method.input_type, known_of(own)).SerializeToString()
        for who, metadata, kind, role, platform_role, name, is_own in everybody(services, own, other, service):
            if who not in INVALID and may(rule, kind, role, platform_role, name, is_own=is_own):
                continue
            answer = await services.call(service, method, request, metadata, sends=False)
            count += 1
            if answer.code not in REFUSALS:
                wrong.append((method.full_name, who, answer.code))
    assert not wrong
    assert count > 10 * len(METHODS)
    assert changes(before, await contents(admin)) == {}
    assert stored_in_redis(redis_url) == keys_before


def stored_in_redis(url: str) -> dict[bytes, bytes | None]:
    with redis.Redis.from_url(url) as client:
        return {key: client.dump(key) for key in client.scan_iter()}


# What they change lies in Redis, is not compared (the last use), or is not there (sessions of somebody without any,
# e-mails to somebody who was sent none).
WRITES_NOTHING_THAT_IS_COMPARED = {"Decide", "ReportKeyUses", "RevokeAllSessions", "EraseRecipient"}
# What `AppendAuditEntries` appends is what it was given; refusals are counted and noted a moment later.
NOTED_BESIDE = {"thing.change", "session.deny", "rpc.deny"}
# They found everything as it was to be.
CHANGED_NOTHING = {"ResumeOrganization", "UpdateOrganization"}


def right_caller(services: AllServices, tenant: Tenant, service: str, rule: Rule) -> Any:
    if rule.processes:
        return process(min(rule.processes), service)
    if access_pb2.CALLER_ANYONE in rule.callers:
        return []
    return services.person(tenant.people["owner"], tenant.id, "owner", "admin")


def shown(raw: bytes) -> str:
    """Reason and fields of a status."""
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)
    unpacked = [
        str(message)
        for detail in status_pb2.Status.FromString(raw).details
        for message in (kind() for kind in kinds)
        if detail.Unpack(message)
    ]
    return " ".join(" ".join(unpacked).split())


async def noted(admin: Any) -> Counter[str]:
    """What is in the audit log, and what waits to be handed on to it."""
    rows = await admin.fetch(
        "SELECT action FROM auth.audit_entries"
        + "".join(
            f" UNION ALL SELECT payload ->> 'action' FROM {name}.jobs WHERE kind = 'append_audit_entry'"
            for name in ("ratelimit", "metering", "billing", "notification")
        )
    )
    return Counter(row["action"] for row in rows)


async def test_the_same_requests_write_when_they_are_not_refused_and_are_audited_as_documented(
    services: AllServices, admin: Any
) -> None:
    malformed, wrote, wrote_nothing, audited, audited_wrongly = {}, set(), set(), set(), {}
    due = documented()
    changing = {method.name for _, method in METHODS if method.GetOptions().idempotency_level != READS}
    for number, (service, method) in enumerate(METHODS):
        tenant = await services.seed_tenant(f"tenant{number}")
        request = valid(method.input_type, {**known_of(tenant), "name": f"tenant{number}"}).SerializeToString()
        before, noted_before = await contents(admin), await noted(admin)
        caller = right_caller(services, tenant, service, read_rule(method))
        answer = await services.call(service, method, request, caller)
        if "INVALID_FIELDS" in shown(answer.status):
            malformed[method.name] = shown(answer.status)
        elif answer.code is grpc.StatusCode.OK and method.name in changing:
            (wrote if changes(before, await contents(admin)) else wrote_nothing).add(method.name)
            actions, found = due[method.full_name][0], set(await noted(admin) - noted_before) - NOTED_BESIDE
            if found:
                audited.add(method.name)
            is_silent = bool(actions) and not found and method.name in wrote - CHANGED_NOTHING
            if is_silent or not found <= set(actions):
                audited_wrongly[method.name] = (actions, found)
    assert audited_wrongly == {}
    assert len(audited) >= 20
    assert malformed == {}
    assert wrote_nothing <= WRITES_NOTHING_THAT_IS_COMPARED
    # What is not taken needs more than a form: a token that was sent by e-mail, a code, something to give back.
    assert len(wrote) > len(changing) / 2, changing - wrote
