"""Who is calling, as far as the gateway needs to know: for defaults and for limits.

The services decide what a caller may do, from the same credentials. The gateway reads them only to fill in the
organization, to answer `viewer` and to know whose allowance a request is taken from, so it never refuses a request
because of them: credentials that are wrong, or that cannot be checked while `auth` is away, come out as such and the
operation that needs them fails on its own.

Tollway's own processes are nobody at this door. Their tokens are refused, and so is whatever cannot be checked and does
not even claim to be a person's session or a service account's token.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, assert_never
from uuid import UUID

import jwt

from graphql_gateway import errors
from graphql_gateway.failure import Failure
from mesh.rpc.access import (
    CredentialsInvalid,
    CredentialsMissing,
    Principal,
    PrincipalKind,
    bearer_token,
)
from mesh.rpc.errors import Unavailable
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX
from mesh.rpc.tokens import ISSUER

IDENTIFY_TIMEOUT_SECONDS: Final = 1.0


class IdentityKind(Enum):
    """What the credentials turned out to be."""

    ANONYMOUS = "anonymous"
    PERSON = "person"
    SERVICE_ACCOUNT = "service_account"
    REFUSED = "refused"
    """Credentials were sent and are not valid."""
    UNCHECKED = "unchecked"
    """Credentials were sent and cannot be checked at the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is calling.

    Attributes:
        kind: What the credentials turned out to be.
        subject: UUID of the person or service account, else empty.
        organization_id: The organization that the credentials are for.
        role: The role there as the contract numbers it, else 0.
        platform_roles: Roles as part of the operator's own people, numbered likewise.
    """

    kind: IdentityKind
    subject: str = ""
    organization_id: UUID | None = None
    role: int = 0
    platform_roles: tuple[int, ...] = ()

    @property
    def known(self) -> bool:
        """Say whether the caller is a person or a service account."""
        return self.kind in {IdentityKind.PERSON, IdentityKind.SERVICE_ACCOUNT}

    def require_known(self) -> None:
        """Fail unless the caller is known.

        Raises:
            Failure: UNAUTHENTICATED, or UNAVAILABLE where the credentials cannot be checked.
        """
        if self.kind is IdentityKind.UNCHECKED:
            raise Failure.of(errors.ServiceUnavailable())
        if not self.known:
            raise Failure.of(CredentialsMissing() if self.kind is IdentityKind.ANONYMOUS else CredentialsInvalid())

    def require_organization(self) -> UUID:
        """Return the organization that the credentials are for.

        Raises:
            Failure: The caller is not known, or belongs to no organization.
        """
        self.require_known()
        if self.organization_id is None:
            raise Failure.of(errors.OrganizationNeeded())
        return self.organization_id


ANONYMOUS = Identity(kind=IdentityKind.ANONYMOUS)
REFUSED = Identity(kind=IdentityKind.REFUSED)
UNCHECKED = Identity(kind=IdentityKind.UNCHECKED)


class PrincipalReader(Protocol):
    """What is needed of `mesh.rpc.access.Verifier`."""

    async def principal(self, authorization: str | None) -> Principal:
        """Verify the value of an `authorization` field."""
        ...


async def identify(reader: PrincipalReader, authorization: str) -> Identity:
    """Read credentials. Never fails: what cannot be read or checked is an identity of its own."""
    if not authorization:
        return ANONYMOUS
    try:
        async with asyncio.timeout(IDENTIFY_TIMEOUT_SECONDS):
            principal = await reader.principal(authorization)
    except CredentialsInvalid:
        return REFUSED
    except (TimeoutError, Unavailable):
        return UNCHECKED if _may_be_a_persons(authorization) else REFUSED
    return _from_principal(principal)


def _may_be_a_persons(authorization: str) -> bool:
    """Say whether credentials that nobody could check claim to be a person's or a service account's."""
    token = bearer_token(authorization) or ""
    if token.startswith(SERVICE_ACCOUNT_PREFIX):
        return True
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return False
    return claims.get("iss") == ISSUER


def _from_principal(principal: Principal) -> Identity:
    match principal.kind:
        case PrincipalKind.PERSON:
            kind = IdentityKind.PERSON
        case PrincipalKind.SERVICE_ACCOUNT:
            kind = IdentityKind.SERVICE_ACCOUNT
        case PrincipalKind.PROCESS | PrincipalKind.ANYONE:
            # Processes talk to services, not to the public gateway.
            return REFUSED
        case _:
            assert_never(principal.kind)
    return Identity(
        kind=kind,
        subject=principal.subject,
        organization_id=principal.organization_id,
        role=principal.role,
        platform_roles=principal.platform_roles,
    )
