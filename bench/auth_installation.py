"""A small installation for benchmarks: PostgreSQL, auth and as many edges as are wanted, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import aiohttp
import asyncpg
from tollway.auth.v1 import auth_service_pb2 as pb

from cli.stack.ports import LOOPBACK, free_ports
from cli.stack.servers import roles
from cli.stack.servers.postgres import RunningPostgres, start_postgres
from contract import key_format
from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.database import migrate
from mesh.ids import RandomIds
from mesh.rpc.client import Clients
from mesh.rpc.process_tokens import ProcessTokens, public_key_of
from mesh.rpc.tokens import SessionSigner

START_SECONDS_MAX: Final = 60.0
PEPPER: Final = bytes(range(32))
SIGNING_SEED: Final = b"s" * 32
_PROCESSES: Final = (*SERVICES, "edge_proxy", "graphql_gateway")
# Made from their names, so that a process of the benchmark's own knows them.
_SEEDS: Final = {name: hashlib.sha256(f"bench {name}".encode()).digest() for name in _PROCESSES}
_PUBLIC_KEYS: Final = ",".join(f"{name}:{public_key_of(seed).hex()}" for name, seed in _SEEDS.items())
_COLUMNS: Final = (
    "organization_id",
    "api_key_id",
    "digest",
    "pepper_version",
    "name",
    "hint",
    "mode",
    "creator_id",
    "create_time",
    "scopes",
)
_ROUTES: Final = """
version: 1
upstreams:
  bench: {{urls: ["{upstream}"]}}
routes:
  - {{id: scoped, match: {{path_prefix: /scoped}}, upstream: bench, scopes: ["bench"], limiter_unavailable: open}}
  - {{id: all, match: {{path_prefix: /}}, upstream: bench, limiter_unavailable: open}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An edge process."""

    port: int


class Postgres:
    """A server that can be stopped and started again on the same folder and port."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self._folder = folder
        self._port = port
        self._password = password
        self._server: RunningPostgres | None = None

    def start(self) -> str:
        """Start the server and return the superuser's connection string; it blocks until connections are accepted."""
        self._server = start_postgres(
            folder=self._folder / "postgres",
            port=self._port,
            superuser_password=self._password,
            log_path=self._folder / "postgres.log",
        )
        return self._server.admin_dsn

    def stop(self) -> None:
        """Stop the server; every connection breaks."""
        if self._server is not None:
            self._server.stop()
            self._server = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What runs."""

    postgres: Postgres
    access: roles.PostgresAccess
    auth_address: str
    auth_pid: int
    edges: Sequence[Edge]
    organization_id: UUID
    owner_id: UUID

    def owner(self) -> list[tuple[str, str]]:
        """Return the owner's credentials."""
        signer = SessionSigner(seed=SIGNING_SEED, clock=SystemClock(), ids=RandomIds())
        token, _ = signer.issue(person_id=self.owner_id, organization_id=self.organization_id, role="owner")
        return [("authorization", f"Bearer {token}")]

    async def connect(self) -> asyncpg.Connection:
        """Connect to auth's tables as the system role."""
        return await asyncpg.connect(self.access.dsn("tollway_auth_system"))

    async def seed_keys(self, count: int) -> list[str]:
        """Insert live keys and return them."""
        keys = [key_format.mint(pb.KEY_MODE_LIVE, secrets.token_bytes(key_format.RANDOM_BYTES)) for _ in range(count)]
        ids, now = RandomIds(), datetime.now(UTC)
        rows = [
            (
                self.organization_id,
                ids.uuid7(),
                key_format.digest(key, PEPPER),
                1,
                "bench",
                key_format.hint(key),
                "live",
                self.owner_id,
                now,
                ["bench"],
            )
            for key in keys
        ]
        connection = await self.connect()
        try:
            # Row security refuses COPY.
            await connection.execute("CREATE TEMPORARY TABLE new_keys (LIKE api_keys INCLUDING DEFAULTS)")
            await connection.copy_records_to_table("new_keys", records=rows, columns=_COLUMNS)
            await connection.execute("INSERT INTO api_keys SELECT * FROM new_keys")
        finally:
            await connection.close()
        return keys


def clients_of(auth_address: str, process: str) -> Clients:
    """Return clients that call as a process."""
    settings = ProcessSettings(
        process_key=_SEEDS[process].hex(), process_public_keys=_PUBLIC_KEYS, auth_address=auth_address
    )
    return Clients(settings, process=process)


def tokens_of(process: str) -> ProcessTokens:
    """Return what a process proves itself with."""
    return ProcessTokens(seed=_SEEDS[process], process=process, clock=SystemClock())


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that goes again and that PostgreSQL's unprivileged user may enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.asynccontextmanager
async def running(folder: Path, *, edges: int = 0, upstream: str = "http://127.0.0.1:9") -> AsyncIterator[Installation]:
    """Start an installation in a folder and stop it at the end."""
    postgres_port, auth_port, *edge_ports = free_ports(2 + 2 * edges)
    passwords = {login: secrets.token_hex(8) for login in (*roles.logins(), roles.SUPERUSER)}
    postgres = Postgres(folder, postgres_port, passwords[roles.SUPERUSER])
    access = roles.PostgresAccess(host=LOOPBACK, port=postgres_port, passwords=passwords)
    children: list[subprocess.Popen[bytes]] = []
    try:
        await roles.bootstrap(postgres.start(), passwords)
        await migrate.up(access.dsn(roles.OWNER))
        auth = _start(folder, "auth", ["services.auth", "--role", "api"], _auth_variables(access, auth_port))
        children.append(auth)
        organization_id, owner_id = await _seed_organization(access)
        (folder / "routes.yaml").write_text(_ROUTES.format(upstream=upstream), encoding="utf-8")
        for index in range(edges):
            port, admin_port = edge_ports[2 * index : 2 * index + 2]
            variables = _edge_variables(folder, index, port, admin_port, auth_port)
            children.append(_start(folder, f"edge-{index}", ["edge_proxy"], variables))
        installation = Installation(
            postgres=postgres,
            access=access,
            auth_address=f"{LOOPBACK}:{auth_port}",
            auth_pid=auth.pid,
            edges=[Edge(port=port) for port in edge_ports[::2]],
            organization_id=organization_id,
            owner_id=owner_id,
        )
        await _wait_until_ready(installation, edge_ports[1::2])
        yield installation
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait(60)
        postgres.stop()


def _start(folder: Path, name: str, module: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TOLLWAY_")}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", *module], env=inherited | variables, stdout=log, stderr=log)


def _process_variables(name: str) -> dict[str, str]:
    return {
        "TOLLWAY_PROCESS_KEY": _SEEDS[name].hex(),
        "TOLLWAY_PROCESS_PUBLIC_KEYS": _PUBLIC_KEYS,
        "TOLLWAY_KEY_PEPPERS": f"1:{PEPPER.hex()}",
    }


def _auth_variables(access: roles.PostgresAccess, port: int) -> dict[str, str]:
    return {
        **_process_variables("auth"),
        "TOLLWAY_AUTH_LISTEN": f"{LOOPBACK}:{port}",
        "TOLLWAY_AUTH_METRICS_LISTEN": f"{LOOPBACK}:0",
        "TOLLWAY_AUTH_DSN": access.dsn("tollway_auth"),
        "TOLLWAY_AUTH_SYSTEM_DSN": access.dsn("tollway_auth_system"),
        "TOLLWAY_AUTH_DATA_KEYS": f"1:{'01' * 32}",
        "TOLLWAY_SIGNING_KEY": SIGNING_SEED.hex(),
        "TOLLWAY_PAGE_TOKEN_KEY": "03" * 32,
        "TOLLWAY_AUTH_KEYS_PER_ORGANIZATION_MAX": "1000000",
        "TOLLWAY_AUTH_KEYS_PER_PERSON_MINUTE_MAX": "1000000",
    }


def _edge_variables(folder: Path, index: int, port: int, admin_port: int, auth_port: int) -> dict[str, str]:
    return {
        **_process_variables("edge_proxy"),
        "TOLLWAY_AUTH_ADDRESS": f"{LOOPBACK}:{auth_port}",
        "TOLLWAY_RATELIMIT_ADDRESS": f"{LOOPBACK}:9",
        "TOLLWAY_METERING_ADDRESS": f"{LOOPBACK}:9",
        "TOLLWAY_EDGE_LISTEN": f"{LOOPBACK}:{port}",
        "TOLLWAY_EDGE_ADMIN_LISTEN": f"{LOOPBACK}:{admin_port}",
        "TOLLWAY_EDGE_WORKERS": "1",
        "TOLLWAY_EDGE_DATA_DIR": str(folder / f"edge-{index}"),
        "TOLLWAY_EDGE_CONFIG": str(folder / "routes.yaml"),
        "TOLLWAY_EDGE_DECISION_DEADLINE_MS": "5",
    }


async def _seed_organization(access: roles.PostgresAccess) -> tuple[UUID, UUID]:
    ids, now = RandomIds(), datetime.now(UTC)
    organization_id, owner_id = ids.uuid7(), ids.uuid7()
    connection = await asyncpg.connect(access.dsn("tollway_auth_system"))
    try:
        await connection.execute(
            "INSERT INTO organizations (organization_id, name, contact_email, billing_email, metadata, create_time)"
            " VALUES ($1, 'bench', 'c@bench.example', 'c@bench.example', '{}', $2)",
            organization_id,
            now - timedelta(days=1),
        )
    finally:
        await connection.close()
    return organization_id, owner_id


async def _wait_until_ready(installation: Installation, admin_ports: Sequence[int]) -> None:
    clients = clients_of(installation.auth_address, "edge_proxy")
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            await clients.auth.ResolveKeys(pb.ResolveKeysRequest(), wait_for_ready=True, timeout=START_SECONDS_MAX)
            async with aiohttp.ClientSession() as http:
                for port in admin_ports:
                    while not await _follows_keys(http, port):  # noqa: ASYNC110 - another process is waited for
                        await asyncio.sleep(0.05)
    finally:
        await clients.close()


async def _follows_keys(http: aiohttp.ClientSession, port: int) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with http.get(f"http://{LOOPBACK}:{port}/health/ready") as got:
            reasons = json.loads(await got.read())["degraded"]
            return got.status == 200 and not any(reason.startswith("auth:") for reason in reasons)
    return False
