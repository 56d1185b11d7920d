"""Sessions and service accounts on the wire: who somebody is."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.rpc.client_address import client_address
from mesh.rpc.errors import Violations
from mesh.rpc.process_tokens import ProcessKeys
from services.auth.model import Role, ServiceAccount, Session
from services.auth.password_rules import read_password
from services.auth.rpc.fields import to_timestamp
from services.auth.service import Accounts
from services.auth.sessions import Sessions

SERVICE: Final = "auth"
EMAIL_LENGTH_MAX: Final = 254
ROLES: Final = {
    Role.OWNER: access_pb2.ROLE_OWNER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
}
_PLATFORM_ROLES: Final = {
    "platform_admin": access_pb2.PLATFORM_ROLE_ADMIN,
    "platform_support": access_pb2.PLATFORM_ROLE_SUPPORT,
}


class SessionRpcs:
    """Signing in, the keys that sessions are verified with, and service accounts' tokens.

    Args:
        sessions: Signs in.
        accounts: Knows service accounts.
        process_keys: The public keys of all processes; prove that one of ours named an address.
    """

    def __init__(self, sessions: Sessions, accounts: Accounts, process_keys: ProcessKeys) -> None:
        self._sessions = sessions
        self._service_accounts = accounts
        self._process_keys = process_keys

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Any) -> pb.CreateSessionResponse:
        """Sign a person in."""
        email, password, organization_id = from_sign_in(request)
        metadata = dict(context.invocation_metadata() or ())
        session = await self._sessions.create(
            email=email,
            password=password,
            organization_id=organization_id,
            address=client_address(metadata, str(context.peer()), self._process_keys, SERVICE),
        )
        return to_session(session)

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        """Publish the public keys of session tokens."""
        return pb.GetJwksResponse(jwks_json=self._sessions.jwks_json())

    async def ResolveServiceAccount(
        self, request: pb.ResolveServiceAccountRequest, context: Any
    ) -> pb.ResolveServiceAccountResponse:
        """Resolve a service account's token."""
        return to_service_account(await self._service_accounts.resolve_service_account(request.token))


def from_sign_in(request: pb.CreateSessionRequest) -> tuple[str, str, UUID | None]:
    """Check a sign-in and return address, password and organization."""
    violations = Violations()
    violations.check(
        0 < len(request.email) <= EMAIL_LENGTH_MAX, "email", f"must have 1 to {EMAIL_LENGTH_MAX} characters"
    )
    password = read_password(violations, "password", request.password)
    organization_id = None
    if request.organization_id:
        organization_id = violations.read_uuid("organization_id", request.organization_id)
    violations.raise_if_any()
    return request.email, password, organization_id


def to_session(session: Session) -> pb.CreateSessionResponse:
    """Convert a session."""
    return pb.CreateSessionResponse(
        access_token=session.access_token,
        expire_time=to_timestamp(session.expire_time),
        organization_id=str(session.organization_id),
        person_id=str(session.person_id),
        role=ROLES[session.role],
    )


def to_service_account(account: ServiceAccount | None) -> pb.ResolveServiceAccountResponse:
    """Convert a service account, or that there is none."""
    if account is None:
        return pb.ResolveServiceAccountResponse(valid=False)
    return pb.ResolveServiceAccountResponse(
        valid=True,
        service_account_id=str(account.service_account_id),
        organization_id=str(account.organization_id),
        role=ROLES[account.role],
        platform_roles=[_PLATFORM_ROLES[account.platform_role]] if account.platform_role else [],
    )
