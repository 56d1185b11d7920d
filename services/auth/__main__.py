"""Starts the auth service: `python -m services.auth --role api,worker`."""

from __future__ import annotations

import secrets

from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

from mesh.clock import SystemClock
from mesh.config import load, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.rpc.access import Principal, Verifier
from mesh.rpc.client import Clients, service_account_principal
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from mesh.secretbox import SecretBox
from mesh.service.listener import HealthListener
from mesh.service.process import ProcessContext, read_roles, run
from services.auth import convert
from services.auth.config import AuthSettings
from services.auth.consequences import CLEAN_UP, Consequences
from services.auth.key_changes import KeyChanges
from services.auth.keys import ApiKeys, Pepper
from services.auth.rpc import AuthHandler
from services.auth.service import Accounts
from services.auth.sessions import Sessions

NAME = "auth"
ROLES = ("api", "worker")
CLEAN_UP_HOUR = 3
DESCRIPTOR = auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"]


def main() -> None:
    """Read the command line and the environment, then serve until told to stop."""
    roles = read_roles("services.auth", ROLES)
    settings = load(AuthSettings)

    async def serve(context: ProcessContext) -> None:
        await _serve(context, settings, roles)

    run(NAME, settings, serve)


async def _serve(context: ProcessContext, settings: AuthSettings, roles: frozenset[str]) -> None:
    read_dsn = settings.auth_read_dsn
    db = await Database.connect(
        tenant_dsn=settings.auth_dsn.get_secret_value(),
        system_dsn=settings.auth_system_dsn.get_secret_value(),
        read_dsn=read_dsn.get_secret_value() if read_dsn else None,
        name=NAME,
    )
    health = HealthListener(required={"postgres": db.ping})
    await health.start(settings.auth_metrics_listen)
    clients = Clients(settings, process=NAME)
    server = await _serve_api(context, settings, db) if "api" in roles else None
    worker = context.tasks.create_task(_worker(db, clients).run(context.stopping)) if "worker" in roles else None
    await context.stopping.wait()
    if server is not None:
        await server.stop()
    if worker is not None:
        await worker
    await health.stop()
    await clients.close()
    await db.close()


async def _serve_api(context: ProcessContext, settings: AuthSettings, db: Database) -> Server:
    clock, ids = SystemClock(), RandomIds()
    peppers = versioned_keys(settings.key_peppers.get_secret_value())
    accounts = Accounts(db=db, peppers=peppers, clock=clock)
    pepper = Pepper(version=max(peppers), value=peppers[max(peppers)])
    keys = ApiKeys(db=db, pepper=pepper, random_bytes=secrets.token_bytes, clock=clock, ids=ids)
    box = SecretBox(versioned_keys(settings.data_keys.get_secret_value()))
    signer = SessionSigner(seed=bytes.fromhex(settings.signing_key.get_secret_value()), clock=clock, ids=ids)
    sessions = Sessions(db=db, signer=signer, clock=clock, ids=ids)
    key_changes = KeyChanges(db=db, clock=clock)
    context.tasks.create_task(key_changes.run(context.stopping), name="key_changes")
    handler = AuthHandler(
        accounts=accounts,
        keys=keys,
        sessions=sessions,
        key_changes=key_changes,
        db=db,
        idempotency=Idempotency(box=box, clock=clock),
        page_tokens=PageTokens(settings.process_secret.get_secret_value().encode()),
        clock=clock,
        process_secret=settings.process_secret.get_secret_value(),
    )
    return await Server.start(
        name=NAME,
        listen=settings.auth_listen,
        services=[(DESCRIPTOR, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, handler)],
        verifier=_verifier(settings, accounts, sessions),
        clock=clock,
        ids=ids,
        checks={"postgres": db.ping},
    )


def _worker(db: Database, clients: Clients) -> Worker:
    clock = SystemClock()
    return Worker(
        db=db,
        name=NAME,
        handlers=Consequences(db=db, clients=clients, clock=clock).handlers(),
        clock=clock,
        ids=RandomIds(),
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )


def _verifier(settings: AuthSettings, accounts: Accounts, sessions: Sessions) -> Verifier:
    """Auth asks itself directly what the others ask it over the wire."""

    async def fetch_jwks() -> str:
        return sessions.jwks_json()

    async def resolve(token: str) -> Principal | None:
        answer = convert.to_service_account(await accounts.resolve_service_account(token))
        return service_account_principal(answer, token)

    return Verifier(
        process_secret=settings.process_secret.get_secret_value(),
        fetch_jwks=fetch_jwks,
        resolve_service_account=resolve,
        clock=SystemClock(),
    )


if __name__ == "__main__":
    main()
