"""What a user reads when the stack is up."""

from __future__ import annotations

import aiohttp
import pytest

from cli import demo_data, show


@pytest.fixture
def answers(monkeypatch):
    """Answers of the edge by tenant's key and path, in place of the network."""
    sent = []

    async def get(installation, _http, path, key):
        sent.append((path, key))
        free = key == demo_data.TENANTS[0].api_key(installation.secrets)
        if free and len([k for _, k in sent if k == key]) > show.FREE_PER_MINUTE:
            return 429, {"Retry-After": "6"}
        return {"/fail": 500, "/status/404": 404}.get(path, 200), {}

    monkeypatch.setattr(show, "_get", get)
    return sent


class FakeGateway:
    billable = 0
    wrong = False

    async def ask(self, _self, query, **_variables):
        if self.wrong:
            raise show.ShowError("no")
        if "signIn" in query:
            return {"signIn": {"accessToken": "token"}}
        found = {
            "planId": "starter",
            "billableUnits": self.billable,
            "total": {"amountMinor": 1000, "currencyCode": "USD"},
            "lines": [{"description": "Requests included", "quantity": str(self.billable)}],
        }
        self.billable += show.REQUEST_COUNT
        return {"invoicePreview": found}


@pytest.fixture
def gateway(monkeypatch):
    fake = FakeGateway()

    async def ask(self, query, **variables):
        return await fake.ask(self, query, **variables)

    monkeypatch.setattr(show._Gateway, "ask", ask)
    return fake


def test_traffic_shows_statuses_a_refusal_and_the_bill_before_and_after(installation, answers, gateway, capsys):
    show.traffic(installation)
    said = capsys.readouterr().out
    assert "Sparrow: 22 requests (15 x 200, 5 x 404, 2 x 500)" in said
    assert "Ferry: 12 requests (10 x 200, 2 x 429)" in said
    assert "Retry-After: 6" in said
    assert "before       0 billable requests  10.00 USD" in said
    assert "after       20 billable requests  10.00 USD   (20 x Requests included)" in said


def test_traffic_that_fails_is_said_and_does_not_stop_the_stack(installation, answers, gateway, capsys):
    gateway.wrong = True
    show.traffic(installation)
    assert "the demo traffic failed: ShowError: no" in capsys.readouterr().err


def test_addresses_name_everything_and_a_command_that_works(installation, capsys):
    show.addresses(installation)
    said = capsys.readouterr().out
    key = demo_data.TENANTS[1].api_key(installation.secrets)
    assert f"curl -i http://127.0.0.1:8080/echo -H 'Authorization: Bearer {key}'" in said
    assert "auth:50051" in said
    for tenant in demo_data.TENANTS:
        assert tenant.people[0].password(installation.secrets) in said


async def test_an_answer_with_errors_is_not_taken_for_data(installation, monkeypatch):
    class Answer:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return None

        async def json(self, content_type):
            return {"errors": [{"message": "no"}], "data": None}

    class Http:
        def post(self, *_arguments, **_named):
            return Answer()

    with pytest.raises(show.ShowError, match="no"):
        await show._Gateway("http://x", Http(), "token").ask("{}")


def test_network_errors_are_told_in_one_line(installation, monkeypatch, capsys):
    async def fail(_installation):
        raise aiohttp.ClientConnectionError("gone")

    monkeypatch.setattr(show, "_traffic", fail)
    show.traffic(installation)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
