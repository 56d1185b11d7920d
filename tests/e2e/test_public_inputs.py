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
        self.tokens = ["", "nonsense", *[self._sign_in(user) for user in organization["users"]] * 4]

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

    def _sign_in(self, user: dict[str, Any]) -> str:
        body = json.dumps({"email": user["email"], "password": user["password"]}).encode()
        headers = {"Content-Type": "application/json"}
        status, answer = self.send(Request(method="POST", target="/api/v1/sessions", headers=headers, body=body))
        assert status == 200, answer
        return str(answer["data"]["access_token"])


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
    @given(request=requests, token=st.sampled_from(door.tokens))
    def check(request: Request, token: str) -> None:
        status, body = door.send(request, token)
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
    @given(body=graphql_bodies(build_schema(SCHEMA.read_text()), known), token=st.sampled_from(door.tokens))
    def check(body: bytes, token: str) -> None:
        status, answer = door.send(Request(method="POST", target="/graphql", headers=headers, body=body), token)
        assert status < 500, (body, answer)
        for error in answer.get("errors", ()):
            assert error["extensions"]["status"] not in OURS, (body, answer)
            answered[error["extensions"]["code"]] += 1
        answered["data"] += "errors" not in answer

    check()
    assert answered["data"] > GRAPHQL_EXAMPLES // 50
    assert answered["GRAPHQL_VALIDATION_FAILED"] > GRAPHQL_EXAMPLES // 50
