"""Runs auth: `python -m services.auth --role api,worker`. The only wiring of the service."""

from __future__ import annotations

import secrets

from tollway.auth.v1 import auth_service_pb2_grpc

from contract.services import AUTH
from mesh.clock import Clock
from mesh.config import hex_key, versioned_keys
from mesh.database.idempotency import Idempotency
from mesh.jobs import Daily, Worker
from mesh.pagination import PageTokens
from mesh.rpc.access import Principal, Verifier
from mesh.rpc.client import service_account_principal
from mesh.rpc.tokens import SessionSigner
from mesh.secretbox import SecretBox
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.auth.clients import NotificationClient
from services.auth.config import AuthSettings
from services.auth.denials import Denials
from services.auth.jobs import CLEAN_UP, AuthJobs
from services.auth.key_changes import KeyChanges
from services.auth.key_limits import KeyLimits
from services.auth.keys import ApiKeys, Pepper
from services.auth.rpc import AuthHandler
from services.auth.rpc.sessions import to_service_account
from services.auth.service import Accounts
from services.auth.sessions import Sessions

CLEAN_UP_HOUR = 3


def serve_api(context: ServiceContext[AuthSettings]) -> Role:
    """Wire the RPCs, and the listener that tells edges about changed keys."""
    settings, db, clock, ids = context.settings, context.db, context.clock, context.ids
    peppers = versioned_keys(settings.key_peppers.get_secret_value())
    accounts = Accounts(db=db, peppers=peppers, clock=clock)
    pepper = Pepper(version=max(peppers), value=peppers[max(peppers)])
    box = SecretBox(versioned_keys(settings.auth_data_keys.get_secret_value()))
    signer = SessionSigner(seed=hex_key(settings.signing_key.get_secret_value()), clock=clock, ids=ids)
    denials = Denials(db=db, clock=clock, ids=ids)
    sessions = Sessions(db=db, signer=signer, denials=denials, clock=clock, ids=ids)
    key_changes = KeyChanges(db=db, clock=clock)
    handler = AuthHandler(
        accounts=accounts,
        keys=ApiKeys(
            db=db,
            idempotency=Idempotency(box=box, clock=clock),
            limits=KeyLimits(
                per_organization_max=settings.auth_keys_per_organization_max,
                per_person_and_minute_max=settings.auth_keys_per_person_minute_max,
            ),
            pepper=pepper,
            random_bytes=secrets.token_bytes,
            clock=clock,
            ids=ids,
        ),
        sessions=sessions,
        denials=denials,
        key_changes=key_changes,
        page_tokens=PageTokens(hex_key(settings.page_token_key.get_secret_value())),
        clock=clock,
        process_keys=settings.process_keys,
    )
    return Role(
        handler=handler,
        verifier=_verifier(settings, accounts, sessions, clock),
        workers=[key_changes.run, denials.run],
        on_denied=handler.note_denied,
        close=[sessions.close],
    )


def work(context: ServiceContext[AuthSettings]) -> Role:
    """Wire the jobs."""
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers=AuthJobs(
            db=context.db, notification=NotificationClient(context.clients), clock=context.clock
        ).handlers(),
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR)],
    )
    return Role(workers=[worker.run])


def _verifier(settings: AuthSettings, accounts: Accounts, sessions: Sessions, clock: Clock) -> Verifier:
    """Auth asks itself directly what the others ask it over the wire."""

    async def fetch_jwks() -> str:
        return sessions.jwks_json()

    async def resolve(token: str) -> Principal | None:
        answer = to_service_account(await accounts.resolve_service_account(token))
        return service_account_principal(answer, token)

    return Verifier(
        process_keys=settings.process_keys,
        audience=SPEC.name,
        fetch_jwks=fetch_jwks,
        resolve_service_account=resolve,
        clock=clock,
    )


SPEC = ServiceSpec(
    name=AUTH.name,
    descriptor=AUTH.descriptor,
    register=auth_service_pb2_grpc.add_AuthServiceServicer_to_server,
    settings=AuthSettings,
    roles={"api": serve_api, "worker": work},
)

if __name__ == "__main__":
    run(SPEC)
