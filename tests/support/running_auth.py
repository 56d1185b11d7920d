"""A real auth server on a real database, and calls to it as different callers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc.aio
from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from tollway.external.envoy.service.auth.v3 import external_auth_pb2_grpc

from contract.services import AUTH, ENVOY_AUTHORIZATION
from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from services.auth.denials import Denials
from services.auth.families import SessionFamilies
from services.auth.key_changes import KeyChanges
from services.auth.key_checks import KeyChecks
from services.auth.key_limits import KeyLimits
from services.auth.principal_changes import PrincipalChanges
from services.auth.signing_keys import SigningKeys
from services.auth.wiring import Secrets, build
from tests.support.accounts import DASHBOARD_URL, DATA_KEY, PEPPER
from tests.support.postgres import TestDatabase
from tests.support.processes import PROCESS_KEYS, process_metadata

SIGNING_SEED = b"s" * 32
# As new as a membership can be: who wants an older token signs in.
NEWEST_VERSION = 2**53 - 1

Metadata = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningAuth:
    stub: auth_service_pb2_grpc.AuthServiceStub
    signer: SessionSigner
    signing_keys: SigningKeys
    database: TestDatabase
    db: Database
    key_changes: KeyChanges
    principal_changes: PrincipalChanges
    key_checks: KeyChecks
    port: int
    envoy: external_auth_pb2_grpc.AuthorizationStub
    denials: Denials
    address: str
    families: SessionFamilies

    def process(self, name: str) -> Metadata:
        return process_metadata(name, "auth")

    def person(self, person_id: UUID, organization_id: UUID, role: str = "owner") -> Metadata:
        token, _ = self.signer.issue(
            person_id=person_id, organization_id=organization_id, role=role, membership_version=NEWEST_VERSION
        )
        return [("authorization", f"Bearer {token}")]


@contextlib.asynccontextmanager
async def running_auth(
    database: TestDatabase,
    *,
    read_dsn: str | None = None,
    limits: KeyLimits | None = None,
    service_accounts_max: int = 100,
) -> AsyncIterator[RunningAuth]:
    clock, ids = SystemClock(), RandomIds()
    db = await Database.connect(
        tenant_dsn=database.dsn("auth"),
        system_dsn=database.dsn("auth_system"),
        read_dsn=read_dsn,
        name="auth",
        pool_size_max=5,
    )
    auth = build(
        db=db,
        secret=Secrets(
            peppers={1: PEPPER}, data_keys={1: DATA_KEY}, signing_seed=SIGNING_SEED, page_token_key=b"page token key"
        ),
        process_keys=PROCESS_KEYS,
        limits=limits or KeyLimits(per_organization_max=1_000, per_person_and_minute_max=1_000),
        service_accounts_max=service_accounts_max,
        dashboard_url=DASHBOARD_URL,
        clock=clock,
        ids=ids,
    )
    await auth.signing_keys.load()
    stopping = asyncio.Event()
    running = (auth.key_changes.run, auth.principal_changes.run, auth.known_keys.run)
    background = [asyncio.create_task(run(stopping)) for run in running]
    watching = asyncio.create_task(auth.principals_watch.run())
    descriptor = auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"]
    server = await Server.start(
        name="auth",
        listen="127.0.0.1:0",
        services=[
            (descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, auth.handler),
            (ENVOY_AUTHORIZATION.descriptor, external_auth_pb2_grpc.add_AuthorizationServicer_to_server, auth.envoy),
        ],
        foreign=AUTH.foreign,
        verifier=auth.verifier,
        clock=clock,
        ids=ids,
        checks={"postgres": db.ping},
        on_denied=auth.handler.note_denied,
    )
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    try:
        yield RunningAuth(
            stub=auth_service_pb2_grpc.AuthServiceStub(channel),
            signer=SessionSigner(seed=SIGNING_SEED, clock=clock, ids=ids),
            signing_keys=auth.signing_keys,
            database=database,
            db=db,
            key_changes=auth.key_changes,
            principal_changes=auth.principal_changes,
            key_checks=auth.key_checks,
            port=server.port,
            envoy=external_auth_pb2_grpc.AuthorizationStub(channel),
            denials=auth.denials,
            address=f"127.0.0.1:{server.port}",
            families=auth.families,
        )
    finally:
        stopping.set()
        await channel.close()
        await server.stop(1.0)
        watching.cancel()
        await asyncio.gather(watching, *background, return_exceptions=True)
        await auth.passwords.close()
        await db.close()


async def read_to_the_end(call: Any) -> None:
    """Read a stream until it ends, past signs of life that were on their way.

    Raises:
        grpc.aio.AioRpcError: What it ended with.
        TimeoutError: It did not end in a minute.
    """
    async with asyncio.timeout(60):
        while await call.read() is not grpc.aio.EOF:
            pass
