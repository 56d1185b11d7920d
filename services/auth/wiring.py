"""Puts auth together: the one place that knows which part needs which. `__main__` and the tests both build by it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from tollway.auth.v1.principals_pb2 import WatchPrincipalsResponse

from mesh.clock import Clock
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.pagination import PageTokens
from mesh.rpc.access import Principal, Verifier
from mesh.rpc.client import PRINCIPALS_BACKOFF_SECONDS_MAX, service_account_principal
from mesh.rpc.principals import Principals
from mesh.rpc.process_tokens import ProcessKeys
from mesh.rpc.stream_watch import StreamWatch
from mesh.secretbox import SecretBox
from services.auth.audit import AuditLog
from services.auth.audit_reading import AuditReading
from services.auth.config import SERVICE_ACCOUNTS_PER_ORGANIZATION_MAX
from services.auth.confirmation import Confirmation
from services.auth.credentials import Credentials
from services.auth.denials import Denials
from services.auth.email_requests import EmailRequests
from services.auth.erasure import Erasure
from services.auth.families import SessionFamilies
from services.auth.invitation_answers import InvitationAnswers
from services.auth.invitations import Invitations
from services.auth.invited_registrations import InvitedRegistrations
from services.auth.key_changes import KeyChanges
from services.auth.key_checks import KeyChecks
from services.auth.key_edits import KeyEdits
from services.auth.key_imports import KeyImports
from services.auth.key_limits import KeyLimits
from services.auth.key_making import KeyMaker, Pepper
from services.auth.key_uses import KeyUses
from services.auth.keys import ApiKeys
from services.auth.known_keys import KnownKeys
from services.auth.mail import Mail
from services.auth.members import Members
from services.auth.one_time import OneTimeTokens
from services.auth.organization_states import OrganizationStates
from services.auth.organizations import Organizations
from services.auth.passwords import Passwords
from services.auth.people import People
from services.auth.person_export import PersonExport
from services.auth.principal_changes import PrincipalChanges
from services.auth.refresh_tokens import RefreshTokens
from services.auth.registrations import Registrations
from services.auth.rpc import AuthHandler
from services.auth.rpc.envoy import EnvoyAuthorization
from services.auth.rpc.principals import watch
from services.auth.rpc.service_accounts import to_resolved
from services.auth.second_factors import SecondFactors
from services.auth.service import Accounts
from services.auth.service_accounts import ServiceAccounts
from services.auth.sessions import Sessions
from services.auth.signing_keys import SigningKeys
from services.auth.throttle import SignInThrottle
from services.auth.totp import RecoveryCodes

AUDIENCE = "auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What auth is told in confidence.

    Args:
        peppers: Of digests, by version; the highest is for new ones.
        data_keys: What secrets in tables are sealed with, by version; the highest is for new ones.
        signing_seed: Of the first key that session tokens are signed with, 32 bytes.
        page_token_key: Signs page tokens.
    """

    peppers: Mapping[int, bytes]
    data_keys: Mapping[int, bytes]
    signing_seed: bytes
    page_token_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The parts that somebody outside has to reach."""

    handler: AuthHandler
    verifier: Verifier
    signing_keys: SigningKeys
    sessions: Sessions
    passwords: Passwords
    families: SessionFamilies
    mail: Mail
    denials: Denials
    key_changes: KeyChanges
    principal_changes: PrincipalChanges
    principals_watch: StreamWatch[WatchPrincipalsResponse]
    known_keys: KnownKeys
    key_checks: KeyChecks
    envoy: EnvoyAuthorization


def build(
    *,
    db: Database,
    secret: Secrets,
    process_keys: ProcessKeys,
    limits: KeyLimits,
    service_accounts_max: int = SERVICE_ACCOUNTS_PER_ORGANIZATION_MAX,
    dashboard_url: str,
    clock: Clock,
    ids: IdSource,
) -> Auth:
    """Build the RPCs and what runs beside them.

    Args:
        db: Auth's tables.
        secret: Keys and peppers.
        process_keys: The public keys of all processes.
        limits: How many API keys there may be.
        service_accounts_max: How many service accounts of one organization may work at once.
        dashboard_url: Where links in e-mails lead.
        clock: Time.
        ids: New ids.
    """
    audit = AuditLog(clock=clock, ids=ids)
    accounts = Accounts(db=db, clock=clock)
    newest = max(secret.peppers)
    box = SecretBox(secret.data_keys)
    idempotency = Idempotency(box=box, clock=clock)
    signing_keys = SigningKeys(
        db=db,
        box=box,
        first_seed=secret.signing_seed,
        idempotency=idempotency,
        audit=audit,
        random_bytes=secrets.token_bytes,
        clock=clock,
        ids=ids,
    )
    denials = Denials(db=db, clock=clock, ids=ids)
    mail = Mail(box=box, ids=ids, dashboard_url=dashboard_url)
    families = SessionFamilies(
        db=db,
        signing_keys=signing_keys,
        refresh_tokens=RefreshTokens(peppers=secret.peppers, random_bytes=secrets.token_bytes),
        audit=audit,
        mail=mail,
        clock=clock,
        ids=ids,
    )
    passwords = Passwords()
    throttle = SignInThrottle(clock=clock)
    confirmation = Confirmation(db=db, passwords=passwords, throttle=throttle, denials=denials)
    second_factors = SecondFactors(
        db=db,
        box=box,
        recovery=RecoveryCodes(peppers=secret.peppers, random_bytes=secrets.token_bytes),
        confirmation=confirmation,
        mail=mail,
        audit=audit,
        random_bytes=secrets.token_bytes,
        clock=clock,
    )
    sessions = Sessions(
        db=db,
        families=families,
        second_factors=second_factors,
        denials=denials,
        passwords=passwords,
        throttle=throttle,
    )
    requests = EmailRequests(clock=clock)
    tokens = OneTimeTokens(peppers=secret.peppers, random_bytes=secrets.token_bytes)
    key_changes = KeyChanges(db=db, clock=clock)
    principal_changes = PrincipalChanges(db=db, clock=clock)
    principals = Principals(clock=clock)
    known_keys = KnownKeys(db=db, key_changes=key_changes, clock=clock)
    service_accounts = ServiceAccounts(
        db=db,
        idempotency=idempotency,
        per_organization_max=service_accounts_max,
        peppers=secret.peppers,
        audit=audit,
        random_bytes=secrets.token_bytes,
        clock=clock,
        ids=ids,
    )
    pepper = Pepper(version=newest, value=secret.peppers[newest])
    maker = KeyMaker(pepper=pepper, audit=audit, random_bytes=secrets.token_bytes, ids=ids)
    keys = ApiKeys(db=db, idempotency=idempotency, limits=limits, maker=maker, audit=audit, clock=clock)
    key_edits = KeyEdits(db=db, idempotency=idempotency, limits=limits, maker=maker, audit=audit, clock=clock)
    key_uses = KeyUses(db=db, clock=clock)
    key_checks = KeyChecks(known=known_keys, uses=key_uses, peppers=secret.peppers, clock=clock)
    invitations = Invitations(
        db=db, idempotency=idempotency, tokens=tokens, mail=mail, audit=audit, clock=clock, ids=ids
    )
    answers = InvitationAnswers(db=db, idempotency=idempotency, tokens=tokens, mail=mail, audit=audit, clock=clock)
    handler = AuthHandler(
        accounts=accounts,
        audit_reading=AuditReading(db=db, audit=audit, clock=clock),
        organizations=Organizations(
            db=db, idempotency=idempotency, invitations=invitations, audit=audit, clock=clock, ids=ids
        ),
        organization_states=OrganizationStates(db=db, idempotency=idempotency, mail=mail, audit=audit),
        members=Members(db=db, idempotency=idempotency, mail=mail, audit=audit, clock=clock),
        invitations=invitations,
        invitation_answers=answers,
        invited_registrations=InvitedRegistrations(
            db=db, answers=answers, passwords=passwords, families=families, audit=audit, clock=clock, ids=ids
        ),
        keys=keys,
        service_accounts=service_accounts,
        key_edits=key_edits,
        key_imports=KeyImports(
            db=db, idempotency=idempotency, limits=limits, pepper=pepper, audit=audit, mail=mail, clock=clock, ids=ids
        ),
        key_uses=key_uses,
        sessions=sessions,
        registrations=Registrations(
            db=db,
            passwords=passwords,
            throttle=throttle,
            requests=requests,
            tokens=tokens,
            audit=audit,
            clock=clock,
            ids=ids,
        ),
        credentials=Credentials(
            db=db,
            confirmation=confirmation,
            passwords=passwords,
            requests=requests,
            tokens=tokens,
            mail=mail,
            audit=audit,
            clock=clock,
            ids=ids,
        ),
        second_factors=second_factors,
        people=People(db=db, audit=audit),
        person_export=PersonExport(db=db, audit=audit, clock=clock),
        erasure=Erasure(
            db=db,
            confirmation=confirmation,
            second_factors=second_factors,
            idempotency=idempotency,
            box=box,
            audit=audit,
            clock=clock,
            ids=ids,
        ),
        families=families,
        signing_keys=signing_keys,
        denials=denials,
        key_changes=key_changes,
        principal_changes=principal_changes,
        page_tokens=PageTokens(secret.page_token_key),
        clock=clock,
    )
    return Auth(
        handler=handler,
        verifier=_verifier(process_keys, service_accounts, signing_keys, principals, clock),
        signing_keys=signing_keys,
        sessions=sessions,
        passwords=passwords,
        families=families,
        mail=mail,
        denials=denials,
        key_changes=key_changes,
        principal_changes=principal_changes,
        principals_watch=_watch_own(principal_changes, principals),
        known_keys=known_keys,
        key_checks=key_checks,
        envoy=EnvoyAuthorization(key_checks),
    )


def _watch_own(changes: PrincipalChanges, principals: Principals) -> StreamWatch[WatchPrincipalsResponse]:
    """Auth's own verifier learns what the others are told, without a connection."""
    return StreamWatch(
        "principals",
        lambda: watch(changes),
        begin=principals.begin_snapshot,
        receive=principals.receive,
        backoff_seconds_max=PRINCIPALS_BACKOFF_SECONDS_MAX,
    )


def _verifier(
    process_keys: ProcessKeys,
    service_accounts: ServiceAccounts,
    signing_keys: SigningKeys,
    principals: Principals,
    clock: Clock,
) -> Verifier:
    """Auth asks itself directly what the others ask it over the wire."""

    async def fetch_jwks() -> str:
        return signing_keys.jwks_json()

    async def resolve(token: str) -> Principal | None:
        return service_account_principal(to_resolved(await service_accounts.resolve(token)), token)

    return Verifier(
        process_keys=process_keys,
        audience=AUDIENCE,
        fetch_jwks=fetch_jwks,
        resolve_service_account=resolve,
        clock=clock,
        principals=principals,
    )
