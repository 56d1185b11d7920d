"""A real auth server on a real database, and calls to it as different callers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator
from uuid import UUID

import grpc.aio
from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

from mesh.clock import SystemClock
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.pagination import PageTokens
from mesh.rpc.access import Principal, Verifier
from mesh.rpc.client import service_account_principal
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from mesh.secretbox import SecretBox
from services.auth.denials import Denials
from services.auth.key_changes import KeyChanges
from services.auth.key_limits import KeyLimits
from services.auth.keys import ApiKeys, Pepper
from services.auth.rpc import AuthHandler
from services.auth.rpc.sessions import to_service_account
from services.auth.service import Accounts
from services.auth.sessions import Sessions
from tests.support.accounts import DATA_KEY, PEPPER
from tests.support.postgres import TestDatabase
from tests.support.processes import PROCESS_KEYS, process_metadata

Metadata = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningAuth:
    stub: auth_service_pb2_grpc.AuthServiceStub
    signer: SessionSigner
    database: TestDatabase
    db: Database
    key_changes: KeyChanges
    denials: Denials

    def process(self, name: str) -> Metadata:
        return process_metadata(name, "auth")

    def person(self, person_id: UUID, organization_id: UUID, role: str = "owner") -> Metadata:
        token, _ = self.signer.issue(person_id=person_id, organization_id=organization_id, role=role)
        return [("authorization", f"Bearer {token}")]


@contextlib.asynccontextmanager
async def running_auth(
    database: TestDatabase, *, read_dsn: str | None = None, limits: KeyLimits | None = None
) -> AsyncIterator[RunningAuth]:
    clock, ids = SystemClock(), RandomIds()
    db = await Database.connect(
        tenant_dsn=database.dsn("auth"),
        system_dsn=database.dsn("auth_system"),
        read_dsn=read_dsn,
        name="auth",
        pool_size_max=5,
    )
    signer = SessionSigner(seed=b"s" * 32, clock=clock, ids=ids)
    denials = Denials(db=db, clock=clock, ids=ids)
    sessions = Sessions(db=db, signer=signer, denials=denials, clock=clock, ids=ids)
    accounts = Accounts(db=db, peppers={1: PEPPER}, clock=clock)
    keys = ApiKeys(
        db=db,
        idempotency=Idempotency(box=SecretBox({1: DATA_KEY}), clock=clock),
        limits=limits or KeyLimits(per_organization_max=1_000, per_person_and_minute_max=1_000),
        pepper=Pepper(version=1, value=PEPPER),
        random_bytes=secrets.token_bytes,
        clock=clock,
        ids=ids,
    )
    key_changes = KeyChanges(db=db, clock=clock)
    stopping = asyncio.Event()
    background = asyncio.create_task(key_changes.run(stopping))

    async def jwks() -> str:
        return signer.jwks_json()

    async def resolve(token: str) -> Principal | None:
        answer = to_service_account(await accounts.resolve_service_account(token))
        return service_account_principal(answer, token)

    verifier = Verifier(
        process_keys=PROCESS_KEYS, audience="auth", fetch_jwks=jwks, resolve_service_account=resolve, clock=clock
    )
    handler = AuthHandler(
        accounts=accounts,
        keys=keys,
        sessions=sessions,
        denials=denials,
        key_changes=key_changes,
        page_tokens=PageTokens(b"page token key"),
        clock=clock,
        process_keys=PROCESS_KEYS,
    )
    descriptor = auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"]
    server = await Server.start(
        name="auth",
        listen="127.0.0.1:0",
        services=[(descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, handler)],
        verifier=verifier,
        clock=clock,
        ids=ids,
        checks={"postgres": db.ping},
        on_denied=handler.note_denied,
    )
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    try:
        yield RunningAuth(
            stub=auth_service_pb2_grpc.AuthServiceStub(channel),
            signer=signer,
            database=database,
            db=db,
            key_changes=key_changes,
            denials=denials,
        )
    finally:
        stopping.set()
        await channel.close()
        await server.stop(1.0)
        await background
        await sessions.close()
        await db.close()
