"""Sessions on the wire: who somebody is."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.database.idempotency import mutation
from mesh.rpc.access import current_principal
from mesh.rpc.call import current_call
from mesh.rpc.errors import Violations
from services.auth.audit import INSTALLATION
from services.auth.families import SessionFamilies
from services.auth.model import Role, Session, SessionTokens, SigningKey
from services.auth.password_rules import read_password
from services.auth.rpc.fields import to_timestamp
from services.auth.sessions import Sessions
from services.auth.signing_keys import SigningKeys
from services.auth.totp import CODE_LENGTH_MAX

EMAIL_LENGTH_MAX: Final = 254
ROLES: Final = {
    Role.OWNER: access_pb2.ROLE_OWNER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
}


class SessionRpcs:
    """Signing in and out, and the keys that sessions are verified with.

    Args:
        sessions: Signs in.
        families: What follows a sign-in.
        signing_keys: Keys of session tokens.
    """

    def __init__(self, sessions: Sessions, families: SessionFamilies, signing_keys: SigningKeys) -> None:
        self._sessions = sessions
        self._families = families
        self._signing_keys = signing_keys

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Any) -> pb.CreateSessionResponse:
        """Sign a person in."""
        email, password, organization_id = from_sign_in(request)
        tokens = await self._sessions.create(
            email=email,
            password=password,
            organization_id=organization_id,
            address=current_call().address,
            second_factor_code=request.second_factor_code,
        )
        return to_tokens(tokens)

    async def RefreshSession(self, request: pb.RefreshSessionRequest, context: Any) -> pb.CreateSessionResponse:
        """Renew a session."""
        violations = Violations()
        violations.check(bool(request.refresh_token), "refresh_token", "must not be empty")
        violations.raise_if_any()
        return to_tokens(await self._families.refresh(request.refresh_token))

    async def SwitchOrganization(self, request: pb.SwitchOrganizationRequest, context: Any) -> pb.CreateSessionResponse:
        """Move the caller's session to another of their organizations."""
        organization_id = read_id("organization_id", request.organization_id)
        person_id, session_id = caller()
        return to_tokens(await self._families.switch(person_id, session_id, organization_id))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        """List where the caller is signed in."""
        person_id, current_id = caller()
        found = await self._families.list(person_id)
        return pb.ListSessionsResponse(sessions=[to_session(session, current_id) for session in found])

    async def RevokeSession(self, request: pb.RevokeSessionRequest, context: Any) -> pb.RevokeSessionResponse:
        """Sign the caller out of one session."""
        person_id, current_id = caller()
        session_id = read_id("session_id", request.session_id) if request.session_id else current_id
        await self._families.revoke(person_id, session_id)
        return pb.RevokeSessionResponse()

    async def RevokeAllSessions(
        self, request: pb.RevokeAllSessionsRequest, context: Any
    ) -> pb.RevokeAllSessionsResponse:
        """Sign the caller out everywhere."""
        person_id, current_id = caller()
        except_session = current_id if request.keep_current else None
        revoked_count = await self._families.revoke_all(person_id, except_session=except_session)
        return pb.RevokeAllSessionsResponse(revoked_count=revoked_count)

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        """Publish the public keys of session tokens."""
        return pb.GetJwksResponse(jwks_json=self._signing_keys.jwks_json())

    async def RotateSigningKey(self, request: pb.RotateSigningKeyRequest, context: Any) -> pb.RotateSigningKeyResponse:
        """Publish a new key of session tokens."""
        principal = current_principal()
        asked = mutation(
            request,
            organization_id=principal.organization_id or INSTALLATION,
            principal=principal.subject,
            answer_type=pb.RotateSigningKeyResponse,
            to_answer=to_rotation,
        )
        return await self._signing_keys.rotate(asked)


def from_sign_in(request: pb.CreateSessionRequest) -> tuple[str, str, UUID | None]:
    """Check a sign-in and return address, password and organization."""
    violations = Violations()
    violations.check(
        0 < len(request.email) <= EMAIL_LENGTH_MAX, "email", f"must have 1 to {EMAIL_LENGTH_MAX} characters"
    )
    password = read_password(violations, "password", request.password)
    violations.check(
        len(request.second_factor_code) <= CODE_LENGTH_MAX,
        "second_factor_code",
        f"must have at most {CODE_LENGTH_MAX} characters",
    )
    organization_id = None
    if request.organization_id:
        organization_id = violations.read_uuid("organization_id", request.organization_id)
    violations.raise_if_any()
    return request.email, password, organization_id


def caller() -> tuple[UUID, UUID]:
    """Return the person who calls and the session that their token is of."""
    principal = current_principal()
    assert principal.session_id is not None, "the access option lets people alone call"  # noqa: S101
    return UUID(principal.subject), principal.session_id


def read_id(field: str, text: str) -> UUID:
    """Return an id.

    Raises:
        InvalidFields: It is none.
    """
    violations = Violations()
    found = violations.read_uuid(field, text)
    violations.raise_if_any()
    return found


def to_tokens(tokens: SessionTokens) -> pb.CreateSessionResponse:
    """Convert what a client gets when it signs in."""
    return pb.CreateSessionResponse(
        access_token=tokens.access_token,
        expire_time=to_timestamp(tokens.expire_time),
        organization_id=str(tokens.organization_id),
        person_id=str(tokens.person_id),
        role=ROLES[tokens.role],
        refresh_token=tokens.refresh_token,
        refresh_expire_time=to_timestamp(tokens.refresh_expire_time),
        session_id=str(tokens.session_id),
    )


def to_rotation(key: SigningKey) -> pb.RotateSigningKeyResponse:
    """Convert a new key of session tokens."""
    return pb.RotateSigningKeyResponse(key_id=key.key_id, active_time=to_timestamp(key.active_time))


def to_session(session: Session, current_id: UUID) -> pb.Session:
    """Convert a session."""
    return pb.Session(
        session_id=str(session.session_id),
        organization_id=str(session.organization_id),
        create_time=to_timestamp(session.create_time),
        last_use_time=to_timestamp(session.last_use_time),
        expire_time=to_timestamp(session.expire_time),
        address=session.address,
        user_agent=session.user_agent,
        current=session.session_id == current_id,
    )
