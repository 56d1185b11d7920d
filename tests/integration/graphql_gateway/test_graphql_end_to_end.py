"""GraphQL over real HTTP and real gRPC."""

from __future__ import annotations

from tests.integration.graphql_gateway.conftest import ACME, KEYS, PASSWORD, Backend, RunningGateway

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
    assert backend.seen.names() == ["CreateSession", "QueryUsage", "ListApiKeys", "GetOrganization"]


async def test_the_invoice_preview_is_exact_money(gateway: RunningGateway, backend: Backend) -> None:
    query = """{ invoicePreview { planId billableRequests total { amountMinor currencyCode }
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
