"""Whatever is sent to REST and GraphQL, the real services behind them call none of it their own fault.

The requests are made from the OpenAPI document and the schema (`tests.support.inputs`), the same ones in every run.
"""

from __future__ import annotations

import http.client
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.folders import open_folder
from tests.support.inputs import Request, graphql_bodies, rest_requests
from tests.support.stack import running_stack

pytestmark = pytest.mark.xdist_group("e2e-public-inputs")

REST_EXAMPLES = 1_500
GRAPHQL_EXAMPLES = 800
ANSWER_SECONDS = 30
PLENTY = "1000000"
LIMITS = ("ADDRESS", "PRINCIPAL", "ORGANIZATION", "CHANGE_PRINCIPAL", "CHANGE_ORGANIZATION", "SIGN_IN_ADDRESS")
SCHEMA = Path(__file__).parents[2] / "graphql_gateway" / "schema.graphql"
OURS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS", "UNIMPLEMENTED"}
FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


class Door:
    """One kept connection to the gateway, and who may come in."""

    def __init__(self, url: str, organization: dict[str, Any]) -> None:
        self._address = url.removeprefix("http://")
        self._connection = http.client.HTTPConnection(self._address, timeout=ANSWER_SECONDS)
        self.organization = organization
        self.statuses: Counter[int] = Counter()
        self._passwords = {user["email"]: user["password"] for user in organization["users"]}
        self._tokens = {email: self._sign_in(email) for email in self._passwords}
        assert all(self._tokens.values())
        # A name that is no person's is sent as the token itself.
        self.callers = ["", "nonsense", *[*self._passwords] * 4]

    def send_as(self, caller: str, request: Request) -> tuple[int, Any]:
        """Sends a request; whoever signs out by it, or leaves, is signed in again before the next one."""
        status, body = self.send(request, self._tokens.get(caller, caller))
        codes = {error["extensions"]["code"] for error in body.get("errors", ())}
        if caller in self._tokens and (status == 401 or "UNAUTHENTICATED" in codes):
            self._tokens[caller] = self._sign_in(caller) or self._tokens[caller]
        return status, body

    def send(self, request: Request, token: str = "") -> tuple[int, Any]:
        headers = {**request.headers, **({"Authorization": f"Bearer {token}"} if token else {})}
        encoded = {name: value.encode() for name, value in headers.items()}
        try:
            self._connection.request(request.method, request.target, request.body, encoded)
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            # An answer before may have ended the connection; a second time is an answer that never came.
            self._connection = http.client.HTTPConnection(self._address, timeout=ANSWER_SECONDS)
            self._connection.request(request.method, request.target, request.body, encoded)
            response = self._connection.getresponse()
        body = response.read()
        self.statuses[response.status] += 1
        return response.status, json.loads(body)

    def _sign_in(self, email: str) -> str:
        body = json.dumps({"email": email, "password": self._passwords[email]}).encode()
        headers = {"Content-Type": "application/json"}
        status, answer = self.send(Request(method="POST", target="/api/v1/sessions", headers=headers, body=body))
        return str(answer["data"]["access_token"]) if status == 200 else ""


@pytest.fixture(scope="module")
def door():
    environment = {f"TOLLWAY_GATEWAY_{name}_PER_MINUTE": PLENTY for name in LIMITS}
    with (
        open_folder("tests-inputs") as folder,
        running_stack(folder / "var", environment=environment) as stack,
    ):
        yield Door(stack.file["gateway"]["url"], stack.organization("starter"))


def test_no_rest_request_is_a_fault_of_ours(door: Door) -> None:
    document = door.send(Request(method="GET", target="/api/v1/openapi.json"))[1]
    known = {
        "organization_id": door.organization["id"],
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-02T00:00:00Z",
        "page_token": "",
    }
    requests = rest_requests(document, known)

    @settings(FIXED, max_examples=REST_EXAMPLES)
    @given(request=requests, caller=st.sampled_from(door.callers))
    def check(request: Request, caller: str) -> None:
        status, body = door.send_as(caller, request)
        assert status < 500, (request, body)
        assert body["success"] is (status < 400), (request, body)
        if status == 400:
            assert body["error"]["details"]["status"] not in OURS, (request, body)

    check()
    assert door.statuses[200] > REST_EXAMPLES // 50, "some of them have to get through"
    assert door.statuses[400] > REST_EXAMPLES // 50, "and some must not"


def test_no_graphql_request_is_a_fault_of_ours(door: Door) -> None:
    known = {"organizationId": door.organization["id"]}
    headers = {"Content-Type": "application/json"}
    answered: Counter[str] = Counter()

    @settings(FIXED, max_examples=GRAPHQL_EXAMPLES)
    @given(body=graphql_bodies(build_schema(SCHEMA.read_text()), known), caller=st.sampled_from(door.callers))
    def check(body: bytes, caller: str) -> None:
        status, answer = door.send_as(caller, Request(method="POST", target="/graphql", headers=headers, body=body))
        assert status < 500, (body, answer)
        for error in answer.get("errors", ()):
            assert error["extensions"]["status"] not in OURS, (body, answer)
            answered[error["extensions"]["code"]] += 1
        answered["data"] += "errors" not in answer

    check()
    assert answered["data"] > GRAPHQL_EXAMPLES // 50
    assert answered["GRAPHQL_VALIDATION_FAILED"] > GRAPHQL_EXAMPLES // 50
