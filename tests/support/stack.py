"""A whole stack for end-to-end tests: started as a user starts it, in an empty folder, on ports of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc.aio
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from cli.stack.secrets import load
from mesh.config import ProcessSettings
from mesh.rpc.client import Clients
from mesh.rpc.errors import from_grpc

START_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 90.0
POLL_SECONDS = 0.05

# For tests that look at what the limiter says: on a busy machine a decision may take longer than the usual 50 ms, after
# which the edge decides alone.
PATIENT = {"TOLLWAY_EDGE_DECISION_DEADLINE_MS": "5000"}

T = TypeVar("T")


class Stack:
    """A running `tollway up`."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes], output: Path) -> None:
        self.data_dir = data_dir
        self.process = process
        self.output = output

    @property
    def file(self) -> dict[str, Any]:
        """Reads the stack file as it is now."""
        return dict(json.loads((self.data_dir / "stack.json").read_text()))

    def is_up(self) -> bool:
        """Says whether the stack file is this process's: one that was killed leaves its own behind."""
        try:
            return self.file["pids"]["supervisor"] == [self.process.pid]
        except FileNotFoundError:
            return False

    def organization(self, plan: str) -> dict[str, Any]:
        """Returns the seeded organization on a plan."""
        return next(o for o in self.file["organizations"] if o["plan"] == plan)

    def ask_edge(self) -> tuple[int, str]:
        """Send one request to the edge; return its status and what the limiter says is left."""

        async def ask() -> tuple[int, str]:
            headers = {"X-API-Key": self.organization("starter")["api_key"]}
            async with (
                aiohttp.ClientSession() as http,
                http.get(self.file["edge"]["url"] + "/echo", headers=headers) as answer,
            ):
                return answer.status, answer.headers["X-RateLimit-Remaining"]

        return asyncio.run(ask())

    def stop(self) -> int:
        """Presses Ctrl-C and returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_SECONDS)

    def log(self, part: str) -> list[dict[str, Any]]:
        """Reads the JSON lines of a part's log."""
        lines = (self.data_dir / "log" / f"{part}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextmanager
def running_stack(
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (sys.executable, "-m", "cli"),
    cwd: Path | None = None,
) -> Iterator[Stack]:
    """Starts a stack, waits for its stack file and stops it at the end."""
    output = data_dir.parent / f"{data_dir.name}.out"
    whole = [
        *command,
        "up",
        "--data-dir",
        str(data_dir),
        "--ports",
        "auto",
        "--no-demo",
        *arguments,
    ]
    with output.open("ab") as sink:
        process = subprocess.Popen(whole, stdout=sink, stderr=sink, cwd=cwd, env={**os.environ, **(environment or {})})
    stack = Stack(data_dir, process, output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not stack.is_up():
            assert process.poll() is None, f"the stack ended with {process.returncode}:\n{output.read_text()}"
            assert time.monotonic() < deadline, f"the stack did not start:\n{output.read_text()}"
            time.sleep(POLL_SECONDS)
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


class Client:
    """A customer's person at the gateway."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self._url = stack.file["gateway"]["url"]
        self._graphql = self._url + stack.file["gateway"]["graphql_path"]
        self._http = http
        self._token = ""

    async def sign_in(self, organization: Mapping[str, Any], role: str = "owner") -> Client:
        """Signs in as the organization's first person with a role."""
        user = next(u for u in organization["users"] if u["role"] == role)
        answer = await self.graphql(
            "mutation($e: String!, $p: String!) { signIn(email: $e, password: $p) { accessToken } }",
            e=user["email"],
            p=user["password"],
        )
        self._token = answer["signIn"]["accessToken"]
        return self

    async def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Runs an operation that must succeed."""
        body = {"query": query, "variables": variables}
        async with self._http.post(self._graphql, json=body, headers=self._headers()) as answer:
            result = await answer.json()
        assert "errors" not in result, result
        return dict(result["data"])

    async def rest(self, method: str, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Calls the REST API."""
        async with self._http.request(method, self._url + path, headers=self._headers(), **arguments) as answer:
            return answer.status, dict(await answer.json())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


async def eventually(what: Callable[[], Awaitable[T]], is_it: Callable[[T], bool], timeout_seconds: float = 60) -> T:
    """Asks again until the answer is as wanted, and fails with the last one."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = await what()
        if is_it(value):
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {timeout_seconds} s"
        await asyncio.sleep(POLL_SECONDS)


async def lift_limits(stack: Stack, organization: Mapping[str, Any], limit: int = 1_000_000_000) -> None:
    """Puts limits in force that a test does not reach; they are decided on all the same."""
    secrets = load(stack.data_dir / "secrets.json")
    settings = ProcessSettings(
        **secrets.process_fields("cli"), ratelimit_address=stack.file["services"]["ratelimit"]["address"]
    )
    window = ratelimit.Window(
        name="burst",
        kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET,
        limit=limit,
        period_seconds=60,
        scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
    )
    policy = ratelimit.Policy(organization_id=organization["id"], version=2**52, windows=[window])
    clients = Clients(settings, process="cli")
    try:
        await clients.ratelimit.PutPolicy(ratelimit.PutPolicyRequest(policy=policy))
    except grpc.aio.AioRpcError as error:
        error.add_note(repr(from_grpc(error)))
        raise
    finally:
        await clients.close()
