"""Runs auth: `python -m services.auth --role api,worker`. The only wiring of the service."""

from __future__ import annotations

import secrets

from tollway.auth.v1 import auth_service_pb2_grpc
from tollway.external.envoy.service.auth.v3 import external_auth_pb2_grpc

from contract.services import AUTH, ENVOY_AUTHORIZATION
from mesh.config import hex_key, versioned_keys
from mesh.jobs import Daily, Worker
from mesh.secretbox import SecretBox
from mesh.service.runner import Role, ServiceContext, ServiceSpec, run
from services.auth.account_mail import AccountMail
from services.auth.clients import NotificationClient
from services.auth.config import AuthSettings
from services.auth.erasure import ERASE_ADDRESS, AddressEraser
from services.auth.jobs import CLEAN_UP, RESEAL, AuthJobs
from services.auth.key_limits import KeyLimits
from services.auth.mail import Mail
from services.auth.one_time import OneTimeTokens
from services.auth.wiring import Secrets, build

CLEAN_UP_HOUR = 3
RESEAL_HOUR = 4


def serve_api(context: ServiceContext[AuthSettings]) -> Role:
    """Serve the RPCs, and the listener that tells edges about changed keys."""
    settings = context.settings
    auth = build(
        db=context.db,
        secret=secrets_of(settings),
        process_keys=settings.process_keys,
        limits=KeyLimits(
            per_organization_max=settings.auth_keys_per_organization_max,
            per_person_and_minute_max=settings.auth_keys_per_person_minute_max,
        ),
        service_accounts_max=settings.auth_service_accounts_per_organization_max,
        dashboard_url=settings.dashboard_url,
        clock=context.clock,
        ids=context.ids,
    )
    return Role(
        handler=auth.handler,
        verifier=auth.verifier,
        beside=[
            (
                ENVOY_AUTHORIZATION.descriptor,
                external_auth_pb2_grpc.add_AuthorizationServicer_to_server,
                auth.envoy,
            )
        ],
        workers=[
            auth.key_changes.run,
            auth.known_keys.run,
            auth.key_checks.run,
            auth.principal_changes.run,
            auth.denials.run,
            auth.signing_keys.run,
        ],
        loops=[auth.principals_watch.run],
        loaded=auth.signing_keys.wait_loaded,
        optional={"principals": auth.principals_watch.check},
        on_denied=auth.handler.note_denied,
        close=[auth.passwords.close],
    )


def secrets_of(settings: AuthSettings) -> Secrets:
    """Read the secrets out of the settings."""
    return Secrets(
        peppers=versioned_keys(settings.key_peppers.get_secret_value()),
        data_keys=versioned_keys(settings.auth_data_keys.get_secret_value()),
        signing_seed=hex_key(settings.signing_key.get_secret_value()),
        page_token_key=hex_key(settings.page_token_key.get_secret_value()),
    )


def work(context: ServiceContext[AuthSettings]) -> Role:
    """Wire the jobs."""
    secret = secrets_of(context.settings)
    box = SecretBox(secret.data_keys)
    mail = Mail(box=box, ids=context.ids, dashboard_url=context.settings.dashboard_url)
    notification = NotificationClient(context.clients)
    auth_jobs = AuthJobs(db=context.db, notification=notification, mail=mail, box=box, clock=context.clock)
    address_eraser = AddressEraser(db=context.db, erase_recipient=notification.erase_recipient, box=box)
    account_mail = AccountMail(
        db=context.db,
        mail=mail,
        tokens=OneTimeTokens(peppers=secret.peppers, random_bytes=secrets.token_bytes),
        clock=context.clock,
    )
    worker = Worker(
        db=context.db,
        name=SPEC.name,
        handlers={
            **auth_jobs.handlers(),
            **account_mail.handlers(),
            ERASE_ADDRESS: address_eraser.erase_address,
        },
        clock=context.clock,
        ids=context.ids,
        daily=[Daily(kind=CLEAN_UP, hour=CLEAN_UP_HOUR), Daily(kind=RESEAL, hour=RESEAL_HOUR)],
    )
    return Role(workers=[worker.run])


SPEC = ServiceSpec(
    name=AUTH.name,
    descriptor=AUTH.descriptor,
    register=auth_service_pb2_grpc.add_AuthServiceServicer_to_server,
    settings=AuthSettings,
    roles={"api": serve_api, "worker": work},
    foreign=AUTH.foreign,
)

if __name__ == "__main__":
    run(SPEC)
