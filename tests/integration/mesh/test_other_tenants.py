"""What belongs to another tenant answers as what does not exist: every RPC, byte for byte and query for query.

The requests come from the descriptors: whoever names another's organization gets what a made-up organization gets, and
whoever names another's thing inside their own organization gets what a made-up id gets. The whole status is compared,
with its details. In place of the time, which no busy machine can compare, the statements are: the same ones in the same
order. An RPC that is written later is covered without a line here.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.database.slow_statements import SlowStatements
from mesh.ids import RandomIds
from mesh.rpc.access import read_rule, role_has
from tests.support.accounts import PASSWORD
from tests.support.all_services import AllServices, Answer, Metadata, Tenant, all_services
from tests.support.valid_requests import valid

METHODS = [
    (name, method)
    for name, service in SERVICES.items()
    for method in service.descriptor.methods
    if access_pb2.CALLER_PERSON in read_rule(method).callers
]
# What comes with every id of a request anew, so that no replay is answered.
IDEMPOTENCY_KEY = "idempotency_key"


class Statements:
    """The statements that each RPC runs, in order."""

    def __init__(self) -> None:
        self.by_rpc: dict[str, list[str]] = {}

    def note(self, record: Any) -> None:
        rpc = structlog.contextvars.get_contextvars().get("rpc")
        if rpc is not None:
            self.by_rpc.setdefault(rpc, []).append(record.query)

    def take(self, rpc: str) -> list[str]:
        return self.by_rpc.pop(rpc, [])


@pytest.fixture
async def statements(monkeypatch: Any) -> Statements:
    found = Statements()
    watch = SlowStatements.watch

    async def watch_and_note(self: SlowStatements, connection: Any) -> None:
        await watch(self, connection)
        connection.add_query_logger(found.note)

    monkeypatch.setattr(SlowStatements, "watch", watch_and_note)
    return found


@pytest.fixture
async def services(database: Any, redis_url: str, statements: Statements) -> Any:
    async with all_services(database, redis_url) as running:
        yield running


async def ids_of(services: AllServices, tenant: Tenant) -> dict[str, str]:
    """The ids of what a tenant has, of every kind that a request can name."""
    found = {
        "api_key_id": str(tenant.api_key_id),
        "creator_id": str(tenant.people["owner"]),
        "person_id": str(tenant.people["member"]),
        "service_account_id": str(tenant.service_accounts["member"]),
    }
    owner = services.person(tenant.people["owner"], tenant.id, "owner")
    for name, given, answered in (
        ("InviteMember", {"organization_id": str(tenant.id)}, "invitation_id"),
        ("CreateSession", {"email": tenant.organization.email, "password": PASSWORD}, "session_id"),
    ):
        method = SERVICES["auth"].descriptor.methods_by_name[name]
        request = valid(method.input_type, {**given, "organization_id": str(tenant.id)})
        answer = await services.call("auth", method, request.SerializeToString(), owner)
        assert answer.code is grpc.StatusCode.OK, (name, answer)
        found[answered] = getattr(answer.message, answered)
    assert all(found.values()), found
    return found


def named_by(descriptor: Descriptor, tenant_field: str, depth: int = 0) -> set[str]:
    """The ids of things that a request may name."""
    found = set()
    for field in descriptor.fields:
        name = field.name.removesuffix("s")
        if field.message_type is not None and depth < 2:
            found |= named_by(field.message_type, tenant_field, depth + 1)
        elif name.endswith("_id") and name not in {tenant_field, "organization_id", "external_id", "plan_id"}:
            found.add(name)
    return found


async def ask(
    services: AllServices, statements: Statements, of: tuple[str, MethodDescriptor], known: Any, caller: Metadata
) -> tuple[Answer, list[str]]:
    """Calls an RPC and returns its answer, and the statements that were run for it."""
    service, method = of
    rpc = f"/{method.containing_service.full_name}/{method.name}"
    statements.take(rpc)
    request = valid(method.input_type, {**known, "idempotency_key": str(RandomIds().uuid7())})
    answer = await services.call(service, method, request.SerializeToString(), caller)
    return answer, statements.take(rpc)


async def test_another_tenant_answers_as_one_that_does_not_exist(services: AllServices, statements: Statements) -> None:
    own, other = await services.seed_tenant("own"), await services.seed_tenant("other")
    owner = services.person(own.people["owner"], own.id, "owner")
    count = 0
    for service, method in METHODS:
        field = read_rule(method).tenant_field
        if not field:
            continue
        answers = [
            await ask(services, statements, (service, method), {field: str(tenant)}, owner)
            for tenant in (other.id, RandomIds().uuid7())
        ]
        assert answers[0] == answers[1], method.name
        assert answers[0][0].code is grpc.StatusCode.NOT_FOUND, method.name
        assert answers[0][0].status, method.name
        count += 1
    assert count > 20


async def test_another_tenants_thing_answers_as_one_that_does_not_exist(
    services: AllServices, statements: Statements
) -> None:
    other = await services.seed_tenant("other")
    ids = await ids_of(services, other)
    compared = {}
    for service, method in METHODS:
        rule = read_rule(method)
        named = named_by(method.input_type, rule.tenant_field)
        if not named & set(ids) or not (rule.acts_on_caller or role_has(access_pb2.ROLE_OWNER, rule.permission)):
            continue
        # Each caller is an organization of its own, so that what one call changes plays no part in the next.
        answers = []
        for number, given in enumerate((ids, {name: str(RandomIds().uuid7()) for name in ids})):
            caller = await services.seed_tenant(f"{method.name.lower()}{number}")
            owner = services.person(caller.people["owner"], caller.id, "owner")
            known = {**given, "organization_id": str(caller.id)}
            # A first call for what a process does once, such as reading its keys or preparing a statement.
            for _ in range(2):
                answer, run = await ask(services, statements, (service, method), known, owner)
            answers.append((answer.code, answer.details, answer.status, str(answer.message), run))
        assert answers[0] == answers[1], (method.name, answers)
        compared[method.name] = (answers[0][0], len(answers[0][-1]))
    assert {"GetApiKey", "RevokeServiceAccount", "RevokeSession", "CancelInvitation", "RemoveMember"} <= set(compared)
    # They were looked for in the tables: nothing was refused at the door.
    assert {name for name, (_, count) in compared.items() if not count} == set()
    assert {code for code, _ in compared.values()} <= {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}, compared
