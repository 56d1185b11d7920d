"""Fields, look-ups and scalars, with services that answer from memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import pytest
from graphql import GraphQLError
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.options.v1 import access_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.callers.identity import Identity, IdentityKind
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.failure import Failure
from graphql_gateway.graph.accounts.loaders import API_KEYS_AT_ONCE_MAX
from graphql_gateway.graph.answer import to_answer
from graphql_gateway.graph.context import GraphContext
from graphql_gateway.graph.cost import QueryLimits, RowAllowance
from graphql_gateway.graph.loaders import Loaders
from graphql_gateway.graph.relay import global_id
from graphql_gateway.graph.scalars import SCALARS, Decimal, Int64
from graphql_gateway.graph.schema import build_schema

ROWS_MAX = 100
ORGANIZATION, OTHER, KEY = UUID(int=1), UUID(int=2), UUID(int=3)
SCHEMA = build_schema(QueryLimits(), production=False)


def key(number: int, organization_id: UUID = ORGANIZATION) -> auth.ApiKey:
    return auth.ApiKey(api_key_id=str(UUID(int=number)), organization_id=str(organization_id), mode=auth.KEY_MODE_TEST)


KEY_MISSING = Failure(code=grpc.StatusCode.NOT_FOUND, reason="API_KEY_NOT_FOUND", message="There is no such API key.")
ANSWERS: dict[str, Any] = {
    "CreateSession": auth.CreateSessionResponse(
        access_token="t", organization_id=str(ORGANIZATION), person_id=str(KEY), role=access_pb2.ROLE_MEMBER
    ),
    "GetOrganization": auth.Organization(
        organization_id=str(ORGANIZATION), name="Acme", state=auth.ORGANIZATION_STATE_SUSPENDED
    ),
    "ListApiKeys": auth.ListApiKeysResponse(api_keys=[key(3), key(4)]),
    "GetApiKey": lambda request: key(3) if request.api_key_id == str(KEY) else KEY_MISSING,
    "BatchGetApiKeys": auth.BatchGetApiKeysResponse(api_keys=[key(3), key(4)]),
    "CreateApiKey": auth.CreateApiKeyResponse(api_key=key(3), secret="s"),
    "RevokeApiKey": key(3),
    "ListAuditEntries": auth.ListAuditEntriesResponse(
        audit_entries=[auth.AuditEntry(audit_entry_id=str(KEY), organization_id=str(ORGANIZATION), action="a")]
    ),
    "QueryUsage": metering.QueryUsageResponse(
        rows=[
            metering.UsageRow(group=["r", str(KEY)], request_count=2**53, billable_units="0.1"),
            metering.UsageRow(group=["r", ""], request_count=1, billable_units="0.2", test_count=7),
        ]
    ),
    "ListPlans": billing.ListPlansResponse(plans=[billing.Plan(plan_id="pro"), billing.Plan(requests_per_month_max=0)]),
    "CreateSubscription": billing.Subscription(
        subscription_id=str(KEY), organization_id=str(ORGANIZATION), plan_id="pro"
    ),
    "PreviewInvoice": billing.InvoicePreview(
        organization_id=str(ORGANIZATION), lines=[billing.InvoiceLine(quantity="1", unit_price="10.00")]
    ),
    "GetPolicy": ratelimit.Policy(
        organization_id=str(ORGANIZATION),
        version=2,
        windows=[
            ratelimit.Window(
                kind=ratelimit.WINDOW_KIND_CALENDAR_MONTH, scope=ratelimit.WINDOW_SCOPE_API_KEY, limit=1_000
            )
        ],
    ),
}


class Services:
    """Answers from memory and remembers what was asked."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.answers = {**ANSWERS, **(answers or {})}
        self.asked: list[tuple[str, Any]] = []

    async def unary(self, rpc: Any, request: Any, _scope: RequestScope) -> Any:
        self.asked.append((rpc.descriptor.name, request))
        answer = self.answers[rpc.descriptor.name]
        answer = answer(request) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


def scope() -> RequestScope:
    identity = Identity(
        kind=IdentityKind.PERSON, subject=str(KEY), organization_id=ORGANIZATION, role=access_pb2.ROLE_MEMBER
    )
    return RequestScope(
        request_id="r", address="192.0.2.1", authorization="Bearer t", identity=identity, deadline_seconds=1e9
    )


async def run(query: str, services: Services | None = None, **variables: Any) -> dict[str, Any]:
    asked: Any = services or Services()
    here = scope()
    context = GraphContext(scope=here, calls=asked, loaders=Loaders(asked, here), rows=RowAllowance(ROWS_MAX))
    result = await SCHEMA.execute(query, variable_values=variables, context_value=context)
    return to_answer(result, request_id="r", suggestions=True)


async def data(query: str, services: Services | None = None, **variables: Any) -> dict[str, Any]:
    answer = await run(query, services, **variables)
    assert "errors" not in answer, answer
    return dict(answer["data"])


async def test_totals_are_exact_sums() -> None:
    query = """{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z", groupBy: [ROUTE, API_KEY]) {
      totals { requestCount billableUnits testCount } rows { group apiKey { apiKeyId } } } }"""
    usage = (await data(query))["usage"]
    assert usage["totals"] == {"requestCount": 2**53 + 1, "billableUnits": "0.3", "testCount": 7}
    assert [row["apiKey"] for row in usage["rows"]] == [{"apiKeyId": str(KEY)}, None]


async def test_rows_are_counted_over_all_aliases_of_a_document() -> None:
    rows = [metering.UsageRow(group=["r", str(KEY)], billable_units="1")] * (ROWS_MAX // 2)
    services = Services({"QueryUsage": metering.QueryUsageResponse(rows=rows)})
    field = 'usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z") { rows { requestCount } }'
    assert "errors" not in await run(f"{{ a: {field} b: {field} }}", services)
    answer = await run(f"{{ a: {field} b: {field} c: {field} }}", services)
    told = answer["errors"][0]["extensions"]
    assert (told["code"], told["metadata"]) == ("QUERY_TOO_COSTLY", {"limit": str(ROWS_MAX), "counted": "rows"})
    assert len(answer["errors"]) == 1
    assert sum(len(one["rows"]) for one in answer["data"].values() if one) == ROWS_MAX


async def test_usage_without_keys_looks_no_key_up() -> None:
    services = Services()
    query = '{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z") { rows { apiKey { name } } } }'
    assert (await data(query, services))["usage"]["rows"] == [{"apiKey": None}] * 2
    assert services.names() == ["QueryUsage"]


async def test_what_is_unset_is_null_and_what_is_zero_is_zero() -> None:
    query = "{ plans { edges { node { includedRequests overageUnitPrice requestsPerMonthMax } } } }"
    (first, second) = (edge["node"] for edge in (await data(query))["plans"]["edges"])
    assert first == {"includedRequests": None, "overageUnitPrice": None, "requestsPerMonthMax": None}
    assert second["requestsPerMonthMax"] == 0
    keys = (await data("{ apiKeys { edges { node { mode expireTime revokeTime externalSubject } } } }"))["apiKeys"]
    assert keys["edges"][0]["node"] == {
        "mode": "TEST",
        "expireTime": None,
        "revokeTime": None,
        "externalSubject": None,
    }


async def test_the_remaining_reads_show_what_services_answer() -> None:
    query = """{
      viewer { role subjectId organization { state } } limits { windows { kind scope limit periodSeconds } }
      invoicePreview { lines { quantity unitPrice } } auditEntries { edges { node { action details } } }
    }"""
    answer = await data(query)
    assert answer["viewer"] == {
        "role": "MEMBER",
        "subjectId": str(KEY),
        "organization": {"state": "SUSPENDED"},
    }
    assert answer["limits"]["windows"] == [
        {"kind": "CALENDAR_MONTH", "scope": "API_KEY", "limit": 1_000, "periodSeconds": None}
    ]
    assert answer["invoicePreview"]["lines"] == [{"quantity": "1", "unitPrice": "10.00"}]
    assert answer["auditEntries"]["edges"][0]["node"] == {"action": "a", "details": {}}


async def test_mutations_send_what_they_are_given() -> None:
    services = Services()
    await data('mutation { signIn(email: "e", password: "p") { role } }', services)
    await data('mutation { createApiKey(name: "n", scopes: ["a"], idempotencyKey: "i") { secret } }', services)
    await data('mutation { createSubscription(planId: "pro") { subscription { planId } } }', services)
    revoke = "mutation ($id: ID!) { revokeApiKey(id: $id) { apiKey { apiKeyId } } }"
    await data(revoke, services, id=str(KEY))
    await data(revoke, services, id=global_id("ApiKey", str(OTHER), str(KEY)))
    requests = [request for _, request in services.asked]
    assert requests[0] == auth.CreateSessionRequest(email="e", password="p")
    assert requests[1] == auth.CreateApiKeyRequest(
        organization_id=str(ORGANIZATION), name="n", mode=auth.KEY_MODE_LIVE, scopes=["a"], idempotency_key="i"
    )
    assert requests[2] == billing.CreateSubscriptionRequest(organization_id=str(ORGANIZATION), plan_id="pro")
    assert [request.organization_id for request in requests[3:]] == [str(ORGANIZATION), str(OTHER)]


async def test_nodes_are_looked_up_by_type() -> None:
    query = "query ($id: ID!) { node(id: $id) { __typename } }"
    assert await data(query, id=global_id("Organization", str(ORGANIZATION))) == {
        "node": {"__typename": "Organization"}
    }
    assert await data(query, id=global_id("ApiKey", str(ORGANIZATION), str(KEY))) == {"node": {"__typename": "ApiKey"}}
    for missing in (global_id("ApiKey", str(ORGANIZATION), str(OTHER)), global_id("Nothing", "1"), "x"):
        answer = await run(query, id=missing)
        assert answer["errors"][0]["extensions"]["code"] == "NODE_NOT_FOUND"


async def test_a_failed_look_up_fails_only_the_fields_that_wanted_it() -> None:
    away = Failure(code=grpc.StatusCode.UNAVAILABLE, reason="SERVICE_UNAVAILABLE", message="Away.")

    def organization(request: Any) -> Any:
        return away if request.organization_id == str(OTHER) else ANSWERS["GetOrganization"]

    services = Services({"GetOrganization": organization})
    query = f'{{ a: organization {{ name }} b: organization(id: "{OTHER}") {{ name }} }}'
    answer = await run(query, services)
    assert answer["data"] == {"a": {"name": "Acme"}, "b": None}
    assert answer["errors"][0]["path"] == ["b"]


async def test_keys_are_looked_up_a_hundred_at_once() -> None:
    def batch(request: Any) -> Any:
        return auth.BatchGetApiKeysResponse(api_keys=[key(UUID(one).int) for one in request.api_key_ids[1:]])

    services: Any = Services({"BatchGetApiKeys": batch})
    loaders = Loaders(services, scope())
    numbers = range(10, 10 + API_KEYS_AT_ONCE_MAX + 20)
    found = await loaders.api_keys.load_many([(ORGANIZATION, UUID(int=number)) for number in numbers])
    assert services.names() == ["BatchGetApiKeys"] * 2
    assert [len(request.api_key_ids) for _, request in services.asked] == [API_KEYS_AT_ONCE_MAX, 20]
    missing = [number for number, one in zip(numbers, found, strict=True) if one is None]
    assert missing == [10, 10 + API_KEYS_AT_ONCE_MAX]
    assert {one.api_key_id for one in found if one} == {str(UUID(int=n)) for n in numbers if n not in missing}


async def test_a_lone_key_is_asked_for_by_name_and_may_be_missing() -> None:
    services: Any = Services()
    loaders = Loaders(services, scope())
    found = await loaders.api_keys.load((ORGANIZATION, KEY))
    assert found is not None
    assert await loaders.api_keys.load((ORGANIZATION, UUID(int=99))) is None
    assert services.names() == ["GetApiKey"] * 2


async def test_keys_of_one_organization_fail_without_those_of_another() -> None:
    away = Failure(code=grpc.StatusCode.UNAVAILABLE, reason="SERVICE_UNAVAILABLE", message="Away.")

    def one(request: Any) -> Any:
        return away if request.organization_id == str(OTHER) else key(3)

    services: Any = Services({"GetApiKey": one})
    loaders = Loaders(services, scope())
    with pytest.raises(Failure):
        await loaders.api_keys.load_many([(ORGANIZATION, KEY), (OTHER, KEY)])
    found = await loaders.api_keys.load((ORGANIZATION, KEY))
    assert found is not None


@pytest.mark.parametrize("value", [1.5, "1", True, 2**63, None])
def test_an_integer_is_one(value: Any) -> None:
    with pytest.raises(GraphQLError):
        SCALARS[Int64].parse_value(value)


@pytest.mark.parametrize("value", ["2026-01-01", "2026-01-01T00:00:00", "soon", 1])
def test_a_time_has_an_offset(value: Any) -> None:
    with pytest.raises(GraphQLError):
        SCALARS[datetime].parse_value(value)


def test_scalars_come_back_as_they_were_meant() -> None:
    assert SCALARS[Int64].parse_value(-(2**63) + 1) == -(2**63) + 1
    assert SCALARS[Decimal].parse_value("1.50") == "1.50"
    with pytest.raises(GraphQLError):
        SCALARS[Decimal].parse_value(1.5)
    read = SCALARS[datetime].parse_value("2026-01-01T01:00:00+01:00")
    assert read == datetime(2026, 1, 1, tzinfo=UTC)
    assert SCALARS[datetime].serialize(read) == "2026-01-01T00:00:00Z"
