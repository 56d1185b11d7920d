"""A service account made by the command line calls everything, gRPC, GraphQL and REST, until it is revoked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from tollway.billing.v1 import billing_service_pb2, billing_service_pb2_grpc
from tollway.metering.v1 import metering_service_pb2, metering_service_pb2_grpc
from tollway.notification.v1 import notification_service_pb2, notification_service_pb2_grpc
from tollway.options.v1 import access_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2, ratelimit_service_pb2_grpc

from contract.services import SERVICES
from mesh.rpc.errors import from_grpc
from tests.support.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("e2e-machines"), pytest.mark.timeout(600)]
REVOKED_SECONDS_MAX = 2.0
VIEWER = "{ viewer { kind role organizationId } }"


def tollway(stack: Stack, home: Path, *arguments: str, entered: str = "") -> str:
    """Run the command line as somebody with a home folder of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=clean | {"XDG_CONFIG_HOME": str(home)},
        input=entered,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def machine(stack: Stack, tmp_path: Path) -> dict[str, Any]:
    """Signs the owner in and makes a service account."""
    owner = stack.organization("starter")["users"][0]
    login = ("login", "--email", owner["email"], "--password-stdin", "--data-dir", str(stack.data_dir))
    tollway(stack, tmp_path, *login, entered=f"{owner['password']}\n")
    made = tollway(stack, tmp_path, "service-account", "create", "ci", "--role", "owner", "--json")
    return dict(json.loads(made))


def grpc_calls(organization_id: str) -> dict[str, tuple[Any, str, Any, grpc.StatusCode]]:
    """One call of each service that says whether it knows the caller: stub, RPC, request, status."""
    ok = grpc.StatusCode.OK
    return {
        "auth": (
            auth_service_pb2_grpc.AuthServiceStub,
            "GetMe",
            auth_service_pb2.GetMeRequest(),
            ok,
        ),
        "billing": (
            billing_service_pb2_grpc.BillingServiceStub,
            "PreviewInvoice",
            billing_service_pb2.PreviewInvoiceRequest(organization_id=organization_id),
            ok,
        ),
        "ratelimit": (
            ratelimit_service_pb2_grpc.RateLimitServiceStub,
            "GetPolicy",
            ratelimit_service_pb2.GetPolicyRequest(organization_id=organization_id),
            ok,
        ),
        # It knows the caller, who is no operator.
        "metering": (
            metering_service_pb2_grpc.MeteringServiceStub,
            "ListDeadLetters",
            metering_service_pb2.ListDeadLettersRequest(organization_id=organization_id),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
        # It knows the caller, who is no process.
        "notification": (
            notification_service_pb2_grpc.NotificationServiceStub,
            "SendEmail",
            notification_service_pb2.SendEmailRequest(organization_id=organization_id),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
    }


async def statuses(stack: Stack, organization_id: str, token: str) -> dict[str, grpc.StatusCode]:
    found = {}
    for service, (stub, rpc, request, _) in grpc_calls(organization_id).items():
        async with grpc.aio.insecure_channel(stack.file["services"][service]["address"]) as channel:
            try:
                await getattr(stub(channel), rpc)(request, metadata=[("authorization", f"bearer {token}")], timeout=10)
                found[service] = grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                found[service] = from_grpc(error).code
    return found


async def rest(http: aiohttp.ClientSession, stack: Stack, path: str, authorization: str) -> int:
    url = f"{stack.file['gateway']['url']}/api/v1{path}"
    async with http.get(url, headers={"Authorization": authorization}) as answer:
        return answer.status


async def graphql(http: aiohttp.ClientSession, stack: Stack, authorization: str) -> Any:
    url = stack.file["gateway"]["url"] + stack.file["gateway"]["graphql_path"]
    async with http.post(url, json={"query": VIEWER}, headers={"Authorization": authorization}) as answer:
        return (await answer.json())["data"]


async def test_a_service_account_is_accepted_everywhere_until_it_is_revoked(
    stack: Stack, http: aiohttp.ClientSession, machine: dict[str, Any], tmp_path: Path
) -> None:
    token, organization_id = machine["token"], machine["service_account"]["organization_id"]
    due = {service: status for service, (*_, status) in grpc_calls(organization_id).items()}
    assert set(due) == set(SERVICES)
    assert await statuses(stack, organization_id, token) == due
    path = f"/organizations/{organization_id}/service-accounts"
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert await rest(http, stack, path, f"{scheme} {token}") == 200
        viewer = (await graphql(http, stack, f"{scheme} {token}"))["viewer"]
        assert (viewer["kind"], viewer["role"], viewer["organizationId"]) == (
            "SERVICE_ACCOUNT",
            "OWNER",
            organization_id,
        )

    rotated = tollway(
        stack, tmp_path, "service-account", "rotate", machine["service_account"]["service_account_id"], "-q"
    ).strip()
    assert await statuses(stack, organization_id, rotated) == due
    tollway(stack, tmp_path, "service-account", "revoke", machine["service_account"]["service_account_id"], "--yes")
    began = time.monotonic()

    async def refused() -> set[Any]:
        found: set[Any] = set((await statuses(stack, organization_id, rotated)).values())
        return found | {await rest(http, stack, path, f"Bearer {rotated}")}

    await eventually(refused, lambda found: found == {grpc.StatusCode.UNAUTHENTICATED, 401})
    print(f"revoked everywhere after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < REVOKED_SECONDS_MAX
    assert set((await statuses(stack, organization_id, token)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_every_service_tells_its_contract_by_reflection(stack: Stack) -> None:
    for service in SERVICES.values():
        async with grpc.aio.insecure_channel(stack.file["services"][service.name]["address"]) as channel:
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            async for answer in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked):
                names = {each.name for each in answer.list_services_response.service}
                assert service.descriptor.full_name in names


async def test_the_operators_service_account_is_made_by_its_administrator_alone(
    stack: Stack, http: aiohttp.ClientSession, machine: dict[str, Any], tmp_path: Path
) -> None:
    operator = stack.file["operator"]["users"][0]
    home = tmp_path / "operator"
    login = ("login", "--email", operator["email"], "--password-stdin", "--data-dir", str(stack.data_dir))
    tollway(stack, home, *login, entered=f"{operator['password']}\n")
    arguments = ("service-account", "create", "support", "--platform-role", "support", "-q")
    token = tollway(stack, home, *arguments).strip()
    organization_id = machine["service_account"]["organization_id"]
    path = f"/organizations/{organization_id}/service-accounts"
    assert await rest(http, stack, path, f"Bearer {token}") == 200
    async with grpc.aio.insecure_channel(stack.file["services"]["auth"]["address"]) as channel:
        stub = auth_service_pb2_grpc.AuthServiceStub(channel)
        request = auth_service_pb2.CreateServiceAccountRequest(
            organization_id=organization_id,
            name="x",
            role=access_pb2.ROLE_MEMBER,
            platform_role=access_pb2.PLATFORM_ROLE_SUPPORT,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateServiceAccount(request, metadata=[("authorization", f"Bearer {machine['token']}")])
        assert from_grpc(caught.value).reason == "OPERATORS_SERVICE_ACCOUNT"


def sign_in(stack: Stack, home: Path, user: dict[str, Any]) -> None:
    arguments = ("login", "--email", user["email"], "--password-stdin", "--data-dir", str(stack.data_dir))
    tollway(stack, home, *arguments, entered=f"{user['password']}\n")


async def test_the_life_of_an_organization_by_command_line(stack: Stack, tmp_path: Path) -> None:
    ferry, sparrow = stack.organization("free"), stack.organization("starter")
    owner, guest, operator = tmp_path / "owner", tmp_path / "guest", tmp_path / "operator"
    sign_in(stack, owner, ferry["users"][0])
    sign_in(stack, guest, sparrow["users"][2])
    sign_in(stack, operator, stack.file["operator"]["users"][0])
    email = sparrow["users"][2]["email"]

    invitation = tollway(stack, owner, "user", "invite", email, "--role", "admin", "-q").strip()
    assert invitation in tollway(stack, owner, "user", "invitation", "list", "-q").split()
    assert tollway(stack, guest, "user", "invitation", "list", "--mine", "-q").split() == [invitation]
    assert tollway(stack, guest, "user", "invitation", "accept", invitation, "-q").strip() == ferry["id"]
    assert email in tollway(stack, owner, "org", "members")
    tollway(stack, guest, "org", "switch", ferry["name"])
    assert json.loads(tollway(stack, guest, "whoami", "--json"))["role"] == "ROLE_ADMIN"
    tollway(stack, owner, "user", "role", email, "member")
    assert json.loads(tollway(stack, guest, "whoami", "--json"))["role"] == "ROLE_MEMBER"
    tollway(stack, owner, "user", "remove", email, "--yes")
    assert email not in tollway(stack, owner, "user", "list")

    made = json.loads(tollway(stack, owner, "org", "create", "Raft", "--contact-email", "r@raft.example", "--json"))
    tollway(stack, owner, "org", "switch", "raft")
    tollway(stack, owner, "org", "update", "--name", "Raft Ltd")
    assert json.loads(tollway(stack, owner, "org", "show", "--json"))["name"] == "Raft Ltd"
    listed = tollway(stack, operator, "org", "list", "--name", "raft", "-q").split()
    assert listed == [made["organization_id"]]
    suspended = json.loads(tollway(stack, operator, "org", "suspend", "Raft Ltd", "--reason", "test", "--json"))
    assert suspended["state"] == "ORGANIZATION_STATE_SUSPENDED"
    resumed = json.loads(tollway(stack, operator, "org", "resume", "Raft Ltd", "--reason", "test", "--json"))
    assert resumed["state"] == "ORGANIZATION_STATE_ACTIVE"
    tollway(stack, owner, "org", "delete", "Raft Ltd", "--confirm-name", "Raft Ltd")
    listed = tollway(stack, operator, "org", "audit", "list", "--organization", made["organization_id"], "--json")
    actions = [json.loads(line)["action"] for line in listed.splitlines()]
    assert {"organization.create", "organization.suspend", "organization.resume", "organization.delete"} <= set(actions)
