"""All services as they are run, in the test's own process on its own database, and calls to any of their RPCs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID

import grpc.aio
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from cli.stack.ports import free_ports
from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.tokens import SessionSigner
from mesh.service.process import ProcessContext
from mesh.service.runner import serve
from tests.support.accounts import SeededOrganization, seed_key, seed_organization, seed_person, seed_service_account
from tests.support.machine_tokens import machine_token
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields, process_metadata

Metadata = list[tuple[str, str]]

SIGNING_SEED = b"s" * 32
PEPPER = bytes([2]) * 32
DATA_KEY = bytes([1]) * 32
CALL_SECONDS_MAX = 60
START_SECONDS_MAX = 120
MADE_UP = "Internal error from Core"
"""Not a service's word: grpc.aio makes this INTERNAL up where a refusal overtakes a message that is being sent."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an RPC answered: its code, and all of its status (`google.rpc.Status`) where it was refused."""

    code: grpc.StatusCode
    details: str = ""
    status: bytes = b""
    message: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An organization with a member of each role, one service account of each role, and one of most things."""

    organization: SeededOrganization
    people: Mapping[str, UUID]
    service_accounts: Mapping[str, UUID]
    api_key_id: UUID

    @property
    def id(self) -> UUID:
        return self.organization.organization_id


class AllServices:
    """The running services. `crashes` says which RPCs raised what nobody expected."""

    def __init__(
        self, database: TestDatabase, channels: Mapping[str, grpc.aio.Channel], crashes: dict[str, str]
    ) -> None:
        self.crashes = crashes
        self.database = database
        self.channels = channels
        self._signer = SessionSigner(seed=SIGNING_SEED, clock=SystemClock(), ids=RandomIds())

    def person(self, person_id: UUID, organization_id: UUID, role: str, *platform_roles: str) -> Metadata:
        """The credentials of a person."""
        token, _ = self._signer.issue(
            person_id=person_id, organization_id=organization_id, role=role, platform_roles=platform_roles
        )
        return [("authorization", f"Bearer {token}")]

    async def call(
        self, service: str, method: MethodDescriptor, raw: bytes, metadata: Metadata, *, sends: bool = True
    ) -> Answer:
        """Calls an RPC with bytes; of a stream of answers, the first one is enough, as some never end.

        Args:
            service: Whose RPC.
            method: Which RPC.
            raw: The request; a stream of requests has it twice.
            metadata: Who calls.
            sends: False opens a stream of requests and sends none.
        """
        kind = ("stream" if method.client_streaming else "unary") + "_"
        kind += "stream" if method.server_streaming else "unary"
        call = getattr(self.channels[service], kind)(
            f"/{method.containing_service.full_name}/{method.name}",
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        request = (iter([raw, raw]) if sends else None) if method.client_streaming else raw
        message = None
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                if not method.server_streaming:
                    message = await call(request, metadata=metadata)
                else:
                    answers = call(request, metadata=metadata)
                    if method.client_streaming and not sends:
                        await answers.done_writing()
                    with contextlib.suppress(StopAsyncIteration):
                        message = await anext(aiter(answers))
                    answers.cancel()
        except grpc.aio.AioRpcError as error:
            if error.details() == MADE_UP:
                return await self.call(service, method, raw, metadata, sends=False)
            trailing = dict(error.trailing_metadata() or ())
            return Answer(
                code=error.code(),
                details=error.details() or "",
                status=bytes(trailing.get("grpc-status-details-bin", b"")),
            )
        return Answer(code=grpc.StatusCode.OK, message=message)

    async def seed_tenant(self, name: str) -> Tenant:
        """Makes an organization that has one of most things."""
        dsn = self.database.dsn("auth_system")
        organization = await seed_organization(dsn, name)
        people = {"owner": organization.owner_id}
        for role in ("admin", "member"):
            people[role] = await seed_person(dsn, organization.organization_id, f"{role}@{name}.example", role)
        accounts = {}
        for role in ("owner", "admin", "member"):
            token = machine_token(f"{name} {role}")
            accounts[role] = await seed_service_account(dsn, organization.organization_id, token, role, pepper=PEPPER)
        api_key_id, _ = await seed_key(dsn, organization.organization_id, organization.owner_id)
        return Tenant(organization=organization, people=people, service_accounts=accounts, api_key_id=api_key_id)


def process(name: str, service: str) -> Metadata:
    """The credentials of a process."""
    return process_metadata(name, service)


def settings_of(
    name: str, settings_class: Any, *, database: TestDatabase, redis_url: str, ports: dict[str, int], metrics_port: int
) -> Any:
    """What a service is told by its environment."""
    offered = {
        **process_fields(name),
        f"{name}_listen": f"127.0.0.1:{ports[name]}",
        f"{name}_metrics_listen": f"127.0.0.1:{metrics_port}",
        f"{name}_dsn": database.dsn(name),
        f"{name}_system_dsn": database.dsn(f"{name}_system"),
        f"{name}_data_keys": f"1:{DATA_KEY.hex()}",
        "key_peppers": f"1:{PEPPER.hex()}",
        "signing_key": SIGNING_SEED.hex(),
        "page_token_key": "03" * 32,
        "redis_url": redis_url,
        "redis_timeout_ms": 10_000,
        "smtp_url": "smtp://127.0.0.1:1",
        "mail_from": "Tollway <no-reply@tollway.example>",
        **{f"{each}_address": f"127.0.0.1:{port}" for each, port in ports.items()},
    }
    return settings_class(**{field: value for field, value in offered.items() if field in settings_class.model_fields})


@contextlib.contextmanager
def _crashes() -> Iterator[dict[str, str]]:
    """Collects crashes in place of the log: thousands of calls would write thousands of lines and stacks."""
    found: dict[str, str] = {}

    def note(_: Any, __: str, event: Any) -> Any:
        if event.get("event") == "rpc_crashed":
            error = sys.exc_info()[1]
            frames = traceback.extract_tb(error.__traceback__) if error else []
            where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            found.setdefault(event["rpc"], f"{error!r} at {where}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, note])
    try:
        yield found
    finally:
        structlog.configure(**before)


@contextlib.asynccontextmanager
async def all_services(database: TestDatabase, redis_url: str) -> AsyncIterator[AllServices]:
    """Runs the role `api` of every service."""
    chosen = free_ports(2 * len(SERVICES))
    ports = dict(zip(SERVICES, chosen, strict=False))
    stopping = asyncio.Event()

    async def run_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, metrics_port in zip(SERVICES, chosen[len(SERVICES) :], strict=True):
                spec = importlib.import_module(f"services.{name}.__main__").SPEC
                configured = settings_of(
                    name, spec.settings, database=database, redis_url=redis_url, ports=ports, metrics_port=metrics_port
                )
                context = ProcessContext(stopping=stopping, tasks=tasks)
                tasks.create_task(serve(spec, configured, frozenset({"api"}), context))

    running = asyncio.create_task(run_all())
    opened = {name: grpc.aio.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()}
    ready = asyncio.gather(*(channel.channel_ready() for channel in opened.values()))
    await asyncio.wait({running, ready}, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
    assert ready.done(), running
    try:
        with _crashes() as crashes:
            yield AllServices(database, opened, crashes)
    finally:
        for channel in opened.values():
            await channel.close()
        stopping.set()
        await asyncio.wait_for(running, CALL_SECONDS_MAX)
