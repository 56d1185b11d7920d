"""How long a revocation takes to be in force everywhere: from the commit to the first refusal, in a whole stack.

A stack of real processes is started (`tollway up`). For each change a principal is made, every service and the gateway
let it in, the change is committed in the tables by hand (as the worst case: no service knows of it beforehand), and all
processes are asked again and again until each has refused. What is recorded is the slowest and the typical of all.

`RUNS` is the number of changes of each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import grpc
import grpc.aio
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.billing.v1 import billing_service_pb2 as billing
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.notification.v1 import notification_service_pb2 as notification
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from bench import report
from cli.stack.secrets import load
from contract import key_format
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.rpc import opaque_tokens
from mesh.rpc.access import Principal, PrincipalKind
from mesh.rpc.client import Clients, forward
from mesh.rpc.errors import from_grpc
from mesh.rpc.tokens import SessionSigner

ROOT: Final = Path(__file__).resolve().parents[1]
CHANGES_OF_A_KIND: Final = 100
REFUSED_SECONDS_MAX: Final = 30.0
START_SECONDS_MAX: Final = 240.0
MS_PER_SECOND: Final = 1000.0
IDS: Final = RandomIds()

Refused = Callable[[], Awaitable[bool]]
"""Asks one process once and tells whether it refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is revoked: their token, and the statement that does it."""

    token: str
    organization_id: UUID
    change: str
    values: tuple[Any, ...]


class Installation:
    """The running stack, as somebody sees it who may do everything."""

    def __init__(self, data_dir: Path, connection: asyncpg.Connection, http: aiohttp.ClientSession) -> None:
        self.file = json.loads((data_dir / "stack.json").read_text())
        self._secrets = load(data_dir / "secrets.json")
        self._connection = connection
        self._http = http
        self._signer = SessionSigner(seed=bytes.fromhex(self._secrets.signing_key), clock=SystemClock(), ids=IDS)
        addresses: dict[str, Any] = {
            f"{name}_address": service["address"] for name, service in self.file["services"].items()
        }
        self.clients = Clients(
            ProcessSettings(**{**addresses, **self._secrets.process_fields("cli")}), process="cli", clock=SystemClock()
        )

    async def execute(self, statement: str, *values: Any) -> None:
        """Run a statement; it is committed when this returns."""
        await self._connection.execute(statement, *values)

    async def person(self) -> tuple[UUID, UUID, UUID, int]:
        """Make an organization with a person who is signed in; return organization, person, session, version."""
        organization_id, person_id, session_id = IDS.uuid7(), IDS.uuid7(), IDS.uuid7()
        await self.execute(
            "INSERT INTO organizations (organization_id, name, contact_email, billing_email, create_time)"
            " VALUES ($1, 'bench', $2, $2, now())",
            organization_id,
            f"{organization_id}@bench.example",
        )
        await self.execute(
            "INSERT INTO people (person_id, email, create_time) VALUES ($1, $2, now())",
            person_id,
            f"{person_id}@bench.example",
        )
        await self.execute(
            "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, 'owner', now())",
            organization_id,
            person_id,
        )
        await self.execute(
            "INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time,"
            " end_time) VALUES ($1, $2, $3, now(), now(), now() + interval '7 days', now() + interval '7 days')",
            session_id,
            person_id,
            organization_id,
        )
        version = await self._connection.fetchval("SELECT version FROM memberships WHERE person_id = $1", person_id)
        return organization_id, person_id, session_id, int(version)

    async def subject(self, kind: str) -> Subject:
        """Make somebody who can be revoked in one way."""
        organization_id, person_id, session_id, version = await self.person()
        token, _ = self._signer.issue(
            person_id=person_id,
            organization_id=organization_id,
            role="owner",
            session_id=session_id,
            membership_version=version,
        )
        match kind:
            case "session_revoked":
                change = "UPDATE sessions SET revoke_time = now(), revoke_reason = 'bench' WHERE session_id = $1"
                return Subject(token=token, organization_id=organization_id, change=change, values=(session_id,))
            case "role_changed":
                change = "UPDATE memberships SET role = 'member' WHERE person_id = $1"
                return Subject(token=token, organization_id=organization_id, change=change, values=(person_id,))
            case "member_removed":
                change = "DELETE FROM memberships WHERE person_id = $1"
                return Subject(token=token, organization_id=organization_id, change=change, values=(person_id,))
            case "organization_suspended":
                change = "UPDATE organizations SET state = 'suspended' WHERE organization_id = $1"
                return Subject(token=token, organization_id=organization_id, change=change, values=(organization_id,))
            case _:
                return await self._service_account(organization_id)

    async def _service_account(self, organization_id: UUID) -> Subject:
        token = opaque_tokens.mint(
            opaque_tokens.SERVICE_ACCOUNT_PREFIX, secrets.token_bytes(opaque_tokens.RANDOM_BYTES)
        )
        service_account_id = IDS.uuid7()
        await self.execute(
            "INSERT INTO service_accounts (organization_id, service_account_id, name, role, digest, pepper_version,"
            " hint, create_time, expire_time)"
            " VALUES ($1, $2, 'bench', 'owner', $3, 1, 'x', now(), now() + interval '1 day')",
            organization_id,
            service_account_id,
            key_format.digest(token, bytes.fromhex(self._secrets.key_pepper)),
        )
        change = "UPDATE service_accounts SET revoke_time = now() WHERE service_account_id = $1"
        return Subject(token=token, organization_id=organization_id, change=change, values=(service_account_id,))

    def probes(self, subject: Subject, kind: str) -> dict[str, Refused]:
        """Return what asks each process that has something to refuse."""
        metadata = forward(Principal(kind=PrincipalKind.PERSON, token=subject.token))
        own, clients = str(subject.organization_id), self.clients
        if kind == "organization_suspended":
            # What reads or pays is allowed; of what is not, the first version has some in auth.
            create = auth.CreateApiKeyRequest(organization_id=own)
            return {
                "auth": _rpc(clients.auth.CreateApiKey, create, metadata, "ORGANIZATION_SUSPENDED"),
                "gateway": self._rest(f"/api/v1/organizations/{own}/api-keys", subject.token),
            }
        calls: dict[str, tuple[Any, Any]] = {
            "auth": (clients.auth.GetOrganization, auth.GetOrganizationRequest(organization_id=own)),
            "ratelimit": (clients.ratelimit.GetPolicy, ratelimit.GetPolicyRequest(organization_id=own)),
            "metering": (clients.metering.QueryUsage, metering.QueryUsageRequest(organization_id=own)),
            "billing": (clients.billing.PreviewInvoice, billing.PreviewInvoiceRequest(organization_id=own)),
            # No person may call it, which is another refusal than that of a token.
            "notification": (clients.notification.SendEmail, notification.SendEmailRequest()),
        }
        probes = {name: _rpc(call, request, metadata, "CREDENTIALS_INVALID") for name, (call, request) in calls.items()}
        return {**probes, "gateway": self._graphql(subject.token)}

    def _graphql(self, token: str) -> Refused:
        """Ask for what the gateway's own verifier answers, without any service."""

        async def refused() -> bool:
            body, headers = {"query": "{ viewer { kind } }"}, {"Authorization": f"Bearer {token}"}
            async with self._http.post(f"{self.file['gateway']['url']}/graphql", json=body, headers=headers) as answer:
                return ((await answer.json()).get("data") or {}).get("viewer") is None

        return refused

    def _rest(self, path: str, token: str) -> Refused:
        async def refused() -> bool:
            headers = {"Authorization": f"Bearer {token}"}
            async with self._http.post(self.file["gateway"]["url"] + path, json={}, headers=headers) as answer:
                return answer.status == 403

        return refused


def _rpc(call: Any, request: Any, metadata: Any, reason: str) -> Refused:
    async def refused() -> bool:
        try:
            await call(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return from_grpc(error).reason == reason
        return False

    return refused


async def _until(refused: Refused) -> float:
    """Ask until refused and return when that was."""
    while not await refused():
        pass
    return time.monotonic()


async def measure(installation: Installation, kind: str) -> dict[str, float]:
    """Revoke somebody and return the milliseconds until each process refused them."""
    subject = await installation.subject(kind)
    probes = installation.probes(subject, kind)
    let_in = [name for name, refused in probes.items() if not await refused()]
    if len(let_in) < len(probes):
        raise RuntimeError(f"{kind}: let in by {let_in} alone before the change")
    async with asyncio.timeout(REFUSED_SECONDS_MAX):
        asking = {name: asyncio.ensure_future(_until(refused)) for name, refused in probes.items()}
        await installation.execute(subject.change, *subject.values)
        committed = time.monotonic()
        # Some may have refused before this process has learnt of the commit.
        return {name: max(0.0, await task - committed) * MS_PER_SECOND for name, task in asking.items()}


@contextlib.contextmanager
def running_stack(data_dir: Path) -> Iterator[None]:
    """Start `tollway up` without traffic, and stop it."""
    command = [sys.executable, "-m", "cli", "up", "--data-dir", str(data_dir), "--ports", "auto", "--no-demo"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not (data_dir / "stack.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the stack did not start")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@contextlib.asynccontextmanager
async def installed(data_dir: Path) -> AsyncIterator[Installation]:
    """Open what is needed to change and to ask."""
    dsn = json.loads((data_dir / "stack.json").read_text())["postgres"]["dsns"]["auth_system"]
    connection = await asyncpg.connect(dsn)
    async with aiohttp.ClientSession() as http:
        installation = Installation(data_dir, connection, http)
        try:
            yield installation
        finally:
            await installation.clients.close()
            await connection.close()


async def bench(data_dir: Path, changes: int) -> Mapping[str, report.Figure]:
    """Measure every kind of change."""
    kinds = ("session_revoked", "role_changed", "member_removed", "organization_suspended", "service_account_revoked")
    figures: dict[str, report.Figure] = {}
    async with installed(data_dir) as installation:
        await asyncio.sleep(2.0)
        for kind in kinds:
            taken = [await measure(installation, kind) for _ in range(changes)]
            everywhere = sorted(max(each.values()) for each in taken)
            for name, value in _percentiles(everywhere).items():
                figures[f"{kind}.everywhere.{name}"] = report.Figure(runs=[value], unit="ms")
            for process in taken[0]:
                of_one = [each[process] for each in taken]
                figures[f"{kind}.{process}.p50"] = report.Figure(runs=[statistics.median(of_one)], unit="ms")
                figures[f"{kind}.{process}.max"] = report.Figure(runs=[max(of_one)], unit="ms")
    return figures


def _percentiles(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile (nearest rank) and maximum of sorted values."""
    return {"p50": statistics.median(values), "p99": values[-(-len(values) * 99 // 100) - 1], "max": values[-1]}


def main() -> None:
    """Run the benchmark and record it."""
    changes = int(os.environ.get("RUNS") or CHANGES_OF_A_KIND)
    with tempfile.TemporaryDirectory() as folder:
        # The embedded PostgreSQL of a root user runs as somebody else.
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "stack"
        with running_stack(data_dir):
            figures = asyncio.run(bench(data_dir, changes))
    report.write("revocation", f"make bench-revocation RUNS={changes}", figures, {})


if __name__ == "__main__":
    main()
