"""GraphQL over real HTTP and real gRPC."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from graphql_gateway.graph.relay import global_id
from graphql_gateway.graph.rpcs import FIELDS
from mesh.rpc.access import PrincipalKind
from tests.integration.graphql_gateway.conftest import (
    ACME,
    KEYS,
    MEMBER,
    OTHER,
    OWNER,
    PASSWORD,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_TOKEN,
    Backend,
    RunningGateway,
)
from tests.support.processes import process_tokens

SIGN_IN = """
mutation ($email: String!, $password: String!) {
  signIn(email: $email, password: $password) { accessToken expireTime organizationId personId role }
}
"""
USAGE = """
query ($start: DateTime!, $end: DateTime!, $by: [Dimension!]) {
  usage(start: $start, end: $end, granularity: DAY, groupBy: $by) {
    organizationId start end
    rows { start group requestCount billableCount billableUnits testCount
           apiKey { name apiKeyId organization { name } } }
    totals { requestCount billableCount billableUnits testCount }
  }
}
"""
RANGE = {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T01:00:00+01:00"}


async def test_a_person_signs_in_and_sees_usage(gateway: RunningGateway, backend: Backend) -> None:
    variables = {"email": "owner@acme.example", "password": PASSWORD}
    signed_in = await gateway.graphql(SIGN_IN, variables=variables)
    assert "errors" not in signed_in
    session = signed_in["data"]["signIn"]
    assert session["organizationId"] == str(ACME)
    assert session["role"] == "OWNER"

    usage = await gateway.graphql(USAGE, token=session["accessToken"], variables={**RANGE, "by": ["API_KEY"]})

    assert "errors" not in usage
    answer = usage["data"]["usage"]
    assert answer["organizationId"] == str(ACME)
    assert answer["end"] == "2026-02-01T00:00:00Z"
    assert [row["group"] for row in answer["rows"]] == [[str(key)] for key in KEYS[:3]]
    assert answer["rows"][2]["requestCount"] == 30
    assert answer["rows"][2]["apiKey"]["apiKeyId"] == str(KEYS[2])
    assert answer["totals"] == {"requestCount": 60, "billableCount": 54, "billableUnits": "6.3", "testCount": 6}
    assert backend.seen.names() == ["CreateSession", "QueryUsage", "BatchGetApiKeys", "GetOrganization"]


async def test_the_invoice_preview_is_exact_money(gateway: RunningGateway, backend: Backend) -> None:
    query = """{ invoicePreview { planId billableUnits total { amountMinor currencyCode }
                 lines { description quantity unitPrice amount { amountMinor currencyCode } } } }"""
    answer = await gateway.graphql(query, token=backend.token())
    preview = answer["data"]["invoicePreview"]
    assert preview["total"] == {"amountMinor": 6_000, "currencyCode": "USD"}
    assert sum(line["amount"]["amountMinor"] for line in preview["lines"]) == 6_000
    assert preview["lines"][1] == {
        "description": "Requests above 10,000",
        "quantity": "5000",
        "unitPrice": "0.01",
        "amount": {"amountMinor": 5_000, "currencyCode": "USD"},
    }


OPERATIONS = {
    "Query.organization": "{ organization { name state metadata createTime } }",
    "Query.apiKeys": "{ apiKeys(first: 2) { edges { node { name } } } }",
    "Query.node": f'{{ node(id: "{global_id("ApiKey", str(ACME), str(KEYS[0]))}") {{ id }} }}',
    "UsageRow.apiKey": """{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z", groupBy: [API_KEY])
                            { rows { apiKey { name } } } }""",
    "Query.auditEntries": "{ auditEntries { edges { node { action details actor } } } }",
    "Query.usage": '{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z") { totals { requestCount } } }',
    "Query.plans": "{ plans { edges { node { planId baseFee { amountMinor } includedRequests } } } }",
    "Query.invoicePreview": "{ invoicePreview { total { amountMinor } } }",
    "Query.limits": "{ limits { version windows { name kind limit periodSeconds scope } } }",
    "Mutation.signIn": f'mutation {{ signIn(email: "a@b.example", password: "{PASSWORD}") {{ accessToken }} }}',
    "Mutation.createApiKey": 'mutation { createApiKey(name: "k") { secret apiKey { hint organization { name } } } }',
    "Mutation.revokeApiKey": f'mutation {{ revokeApiKey(id: "{KEYS[0]}") {{ apiKey {{ revokeTime }} }} }}',
    "Mutation.createSubscription": 'mutation { createSubscription(planId: "pro") { subscription { planVersion } } }',
}


def test_there_is_an_operation_for_every_field() -> None:
    assert set(OPERATIONS) == set(FIELDS)


@pytest.mark.parametrize("path", OPERATIONS)
@pytest.mark.parametrize("who", ["person", "service account"])
async def test_every_field_calls_its_rpc_as_whoever_asks(
    gateway: RunningGateway, backend: Backend, path: str, who: str
) -> None:
    token = backend.token() if who == "person" else SERVICE_ACCOUNT_TOKEN
    answer = await gateway.graphql(OPERATIONS[path], token=token)
    rpc = FIELDS[path]
    if path == "Mutation.createSubscription" and who == "service account":
        assert answer["errors"][0]["extensions"]["code"] == "ROLE_INSUFFICIENT"
        return
    assert "errors" not in answer
    assert rpc.descriptor.name in backend.seen.names()
    at = backend.seen.names().index(rpc.descriptor.name)
    principal = backend.seen.principals[at]
    if rpc.anyone:
        assert principal.kind is PrincipalKind.ANYONE
    else:
        assert principal.subject == (str(OWNER) if who == "person" else str(SERVICE_ACCOUNT))
        assert backend.seen.calls[at][1].organization_id == str(ACME)


async def test_without_credentials_nothing_reaches_a_handler_and_siblings_answer(
    gateway: RunningGateway, backend: Backend
) -> None:
    query = f"""{{
      plans {{ edges {{ node {{ planId }} }} }} viewer {{ kind }}
      invoicePreview(organizationId: "{ACME}") {{ planId }} organization {{ name }}
    }}"""
    answer = await gateway.graphql(query)
    assert answer["data"]["plans"]["edges"] == [{"node": {"planId": "starter"}}]
    assert answer["data"]["viewer"] is None
    codes = {error["path"][0]: error["extensions"]["code"] for error in answer["errors"]}
    assert codes == {"invoicePreview": "CREDENTIALS_MISSING", "organization": "CREDENTIALS_MISSING"}
    assert backend.seen.names() == ["ListPlans"]


async def test_wrong_credentials_are_refused_and_do_not_stand_in_the_way_of_signing_in(
    gateway: RunningGateway, backend: Backend
) -> None:
    answer = await gateway.graphql("{ viewer { kind } invoicePreview { planId } }", token="nonsense")
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"CREDENTIALS_INVALID"}
    assert backend.seen.calls == []
    again = await gateway.graphql(OPERATIONS["Mutation.signIn"], token="nonsense")
    assert "errors" not in again


async def test_a_header_that_cannot_travel_is_no_credential(gateway: RunningGateway, backend: Backend) -> None:
    answer = await gateway.graphql("{ viewer { kind } }", Authorization="Bearer ü")
    assert answer["errors"][0]["extensions"]["code"] == "CREDENTIALS_INVALID"
    answer = await gateway.graphql(f'{{ organization(id: "{ACME}") {{ name }} }}', Authorization="Bearer ü")
    assert answer["errors"][0]["extensions"]["status"] == "UNAUTHENTICATED"
    assert backend.seen.calls == []


async def test_a_process_token_is_nobody(gateway: RunningGateway, backend: Backend) -> None:
    token = process_tokens("billing").bearer("auth").removeprefix("Bearer ")
    answer = await gateway.graphql("{ viewer { kind } }", token=token)
    assert answer["errors"][0]["extensions"]["code"] == "CREDENTIALS_INVALID"


@pytest.mark.parametrize("process", ["graphql_gateway", "billing", "edge_proxy", "cli"])
@pytest.mark.parametrize("service", ["auth", "graphql_gateway"])
async def test_a_process_token_from_outside_reaches_no_service(
    gateway: RunningGateway, backend: Backend, process: str, service: str
) -> None:
    token = process_tokens(process).bearer(service).removeprefix("Bearer ")
    smuggled = {"x-tollway-vouched-by": f"Bearer {token}", "x-tollway-client-address": "192.0.2.1"}
    for operation in (
        f'{{ organization(id: "{ACME}") {{ name }} }}',
        f'{{ limits(organizationId: "{ACME}") {{ version }} }}',
        f'{{ invoicePreview(organizationId: "{ACME}") {{ planId }} }}',
        f'mutation {{ createApiKey(name: "k", organizationId: "{ACME}") {{ secret }} }}',
    ):
        answer = await gateway.graphql(operation, token=token, **smuggled)
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"CREDENTIALS_INVALID"}
    status, body, _ = await gateway.rest("GET", f"/api/v1/organizations/{ACME}", token=token)
    assert (status, body["error"]["code"]) == (401, "CREDENTIALS_INVALID")
    assert backend.seen.calls == []
    assert "errors" not in await gateway.graphql(OPERATIONS["Query.plans"], token=token, **smuggled)
    assert backend.seen.principals[-1].kind is PrincipalKind.ANYONE


async def test_another_tenant_does_not_exist(gateway: RunningGateway, backend: Backend) -> None:
    token = backend.token()
    for operation in (
        f'{{ organization(id: "{OTHER}") {{ name }} }}',
        f'{{ invoicePreview(organizationId: "{global_id("Organization", str(OTHER))}") {{ planId }} }}',
        f'{{ apiKeys(organizationId: "{OTHER}") {{ edges {{ node {{ name }} }} }} }}',
        f'{{ node(id: "{global_id("ApiKey", str(OTHER), str(KEYS[0]))}") {{ id }} }}',
        f'mutation {{ revokeApiKey(id: "{global_id("ApiKey", str(OTHER), str(KEYS[0]))}") {{ apiKey {{ name }} }} }}',
    ):
        answer = await gateway.graphql(operation, token=token)
        assert answer["errors"][0]["extensions"]["code"] == "ORGANIZATION_NOT_FOUND"
    assert backend.seen.calls == []


async def test_a_member_may_not_see_the_bill_and_the_operators_people_may(
    gateway: RunningGateway, backend: Backend
) -> None:
    query = f'{{ invoicePreview(organizationId: "{ACME}") {{ organizationId }} }}'
    member = backend.token(role="member", person_id=MEMBER)
    answer = await gateway.graphql(query, token=member)
    assert answer["errors"][0]["extensions"]["status"] == "PERMISSION_DENIED"
    support = backend.token(organization_id=OTHER, role="member", platform=("support",))
    answer = await gateway.graphql(query, token=support)
    assert answer["data"]["invoicePreview"]["organizationId"] == str(ACME)


async def test_the_viewer_is_read_from_the_credentials(gateway: RunningGateway, backend: Backend) -> None:
    query = "{ viewer { kind subjectId role platformRoles organizationId organization { name } } }"
    answer = await gateway.graphql(query, token=backend.token(role="admin", platform=("support",)))
    assert answer["data"]["viewer"] == {
        "kind": "PERSON",
        "subjectId": str(OWNER),
        "role": "ADMIN",
        "platformRoles": ["SUPPORT"],
        "organizationId": str(ACME),
        "organization": {"name": "Acme"},
    }


async def test_keys_are_a_connection_that_can_be_walked(gateway: RunningGateway, backend: Backend) -> None:
    query = """query ($after: String) { apiKeys(first: 2, after: $after) {
      edges { cursor node { apiKeyId } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    token, seen, after, pages = backend.token(), [], None, 0
    while pages < 10:
        answer = await gateway.graphql(query, token=token, variables={"after": after})
        connection = answer["data"]["apiKeys"]
        seen += [edge["node"]["apiKeyId"] for edge in connection["edges"]]
        assert connection["pageInfo"]["hasPreviousPage"] is bool(pages)
        pages += 1
        after = connection["pageInfo"]["endCursor"]
        if not connection["pageInfo"]["hasNextPage"]:
            break
    assert seen == [str(key) for key in KEYS]
    assert pages == 3


async def test_look_ups_of_one_query_are_one_call_each(gateway: RunningGateway, backend: Backend) -> None:
    query = """{
      a: apiKeys(first: 5) { edges { node { name organization { name } } } }
      organization { name } viewer { organization { timeZone } }
    }"""
    answer = await gateway.graphql(query, token=backend.token())
    assert len(answer["data"]["a"]["edges"]) == 5
    assert sorted(backend.seen.names()) == ["GetOrganization", "ListApiKeys"]


KEY_IDS = [global_id("ApiKey", str(ACME), str(key)) for key in KEYS]
CALLS = {
    "{ viewer { kind subjectId role } }": [],
    "{ viewer { organization { name } } }": ["GetOrganization"],
    "{ apiKeys(first: 5) { edges { node { name organization { name state } } } } }": ["GetOrganization", "ListApiKeys"],
    "{ a: organization { name } b: organization { state } viewer { organization { name } } }": ["GetOrganization"],
    f'{{ node(id: "{KEY_IDS[0]}") {{ id }} }}': ["GetApiKey"],
    "{" + " ".join(f'k{n}: node(id: "{key}") {{ id }}' for n, key in enumerate(KEY_IDS)) + "}": ["BatchGetApiKeys"],
    """{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z", groupBy: [API_KEY]) {
      rows { requestCount apiKey { name organization { name } } } } }""": [
        "BatchGetApiKeys",
        "GetOrganization",
        "QueryUsage",
    ],
    """{ usage(start: "2026-01-01T00:00:00Z", end: "2026-01-02T00:00:00Z", groupBy: [API_KEY]) {
      rows { requestCount group } } }""": ["QueryUsage"],
    "{ plans { edges { node { name } } } limits { version } invoicePreview { planId } }": [
        "GetPolicy",
        "ListPlans",
        "PreviewInvoice",
    ],
}


@pytest.mark.parametrize("query", CALLS)
@pytest.mark.parametrize("role", ["owner", "member"])
async def test_a_query_makes_as_many_calls_as_it_has_kinds_of_things(
    gateway: RunningGateway, backend: Backend, query: str, role: str
) -> None:
    answer = await gateway.graphql(query, token=backend.token(role=role))
    if role == "owner":
        assert "errors" not in answer, answer
        assert sorted(backend.seen.names()) == CALLS[query]
    assert len(backend.seen.names()) <= len(CALLS[query]), "a member's question is not walked page by page"


async def test_one_request_does_not_see_what_another_looked_up(gateway: RunningGateway, backend: Backend) -> None:
    for _ in range(2):
        await gateway.graphql("{ organization { name } }", token=backend.token())
    assert backend.seen.names() == ["GetOrganization"] * 2


async def test_nodes_are_found_by_the_id_they_were_answered_with(gateway: RunningGateway, backend: Backend) -> None:
    token = backend.token()
    listed = await gateway.graphql("{ organization { id } apiKeys { edges { node { id } } } }", token=token)
    ids = [listed["data"]["organization"]["id"], listed["data"]["apiKeys"]["edges"][3]["node"]["id"]]
    query = "query ($id: ID!) { node(id: $id) { __typename id ... on ApiKey { apiKeyId } } }"
    for wanted, type_name in zip(ids, ("Organization", "ApiKey"), strict=True):
        answer = await gateway.graphql(query, token=token, variables={"id": wanted})
        assert answer["data"]["node"]["__typename"] == type_name
        assert answer["data"]["node"]["id"] == wanted
    for missing in ("nonsense", global_id("Plan", "x"), global_id("ApiKey", str(ACME), str(OTHER))):
        answer = await gateway.graphql(query, token=token, variables={"id": missing})
        assert answer["errors"][0]["extensions"]["code"] == "NODE_NOT_FOUND"


async def test_mutations_carry_the_clients_key_or_one_of_ours(gateway: RunningGateway, backend: Backend) -> None:
    mutation = 'mutation ($key: String) { createApiKey(name: "k", idempotencyKey: $key) { secret } }'
    await gateway.graphql(mutation, token=backend.token(), variables={"key": "mine"})
    assert backend.seen.last().idempotency_key == "mine"
    await gateway.graphql(mutation, token=backend.token())
    assert UUID(backend.seen.last().idempotency_key).version == 7


async def test_arguments_reach_the_service_as_they_are(gateway: RunningGateway, backend: Backend) -> None:
    mutation = """mutation { createApiKey(name: "k", mode: TEST, scopes: ["a"], allowedIps: ["10.0.0.0/8"],
      externalSubject: "s", expireTime: "2027-01-01T02:00:00+02:00", idempotencyKey: "i") { secret } }"""
    await gateway.graphql(mutation, token=backend.token())
    expected = auth.CreateApiKeyRequest(
        organization_id=str(ACME),
        name="k",
        mode=auth.KEY_MODE_TEST,
        scopes=["a"],
        allowed_ips=["10.0.0.0/8"],
        external_subject="s",
        idempotency_key="i",
    )
    expected.expire_time.FromJsonString("2027-01-01T00:00:00Z")
    assert backend.seen.last() == expected


async def test_failures_carry_reason_fields_and_facts_and_nothing_else(
    gateway: RunningGateway, backend: Backend
) -> None:
    create = "mutation ($name: String!, $ips: [String!]) { createApiKey(name: $name, allowedIps: $ips) { secret } }"
    token = backend.token()

    async def failed(**variables: Any) -> dict[str, Any]:
        answer = await gateway.graphql(create, token=token, variables=variables)
        assert answer["data"] == {"createApiKey": None}
        return answer["errors"][0]

    wrong = await failed(name="", ips=["a", "b", "c"])
    assert [v["field"] for v in wrong["extensions"]["violations"]] == ["name", "allowedIps"]
    limit = await failed(name="one too many")
    assert limit["message"] == "There are as many keys as there may be."
    assert limit["extensions"]["code"] == "KEY_LIMIT_REACHED"
    assert limit["extensions"]["metadata"] == {"limit": "5"}
    crash = await failed(name="crash")
    assert crash["extensions"]["code"] == "INTERNAL_ERROR"
    assert "implementation" not in str(crash)
    password = await gateway.graphql(SIGN_IN, variables={"email": "a@b.example", "password": "wrong"})
    assert password["errors"][0]["extensions"]["code"] == "PASSWORD_WRONG"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("{ apiKeys(first: 101) { pageInfo { hasNextPage } } }", "first"),
        ('{ apiKeys(after: "x") { pageInfo { hasNextPage } } }', "after"),
        ('{ limits(organizationId: "x") { version } }', "organizationId"),
        ('mutation { revokeApiKey(id: "x") { apiKey { name } } }', "id"),
    ],
)
async def test_wrong_arguments_are_named(gateway: RunningGateway, backend: Backend, query: str, field: str) -> None:
    answer = await gateway.graphql(query, token=backend.token())
    assert [v["field"] for v in answer["errors"][0]["extensions"]["violations"]] == [field]
    assert backend.seen.calls == []
