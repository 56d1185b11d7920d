"""People on the wire: registering, proving an address, passwords, oneself."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.access import PrincipalKind, current_principal
from mesh.rpc.call import current_call
from mesh.rpc.errors import Violations
from services.auth.credentials import Credentials
from services.auth.errors import EmailTokenInvalid
from services.auth.model import NamedMembership, NewRegistration, Profile
from services.auth.password_rules import read_new_password, read_password
from services.auth.people import People
from services.auth.registrations import Registrations
from services.auth.rpc.fields import check_text, read_currency_code, read_email, read_time_zone, to_timestamp
from services.auth.rpc.organizations import ORGANIZATION_STATES
from services.auth.rpc.service_accounts import to_service_account
from services.auth.rpc.sessions import ROLES, caller
from services.auth.service_accounts import ServiceAccounts

NAME_LENGTH_MAX: Final = 200


class PeopleRpcs:
    """Registering, passwords and addresses, and what people see and change of themselves.

    Args:
        registrations: Registers.
        credentials: Sets and changes passwords and addresses.
        people: Shows people themselves.
        service_accounts: Shows service accounts themselves.
    """

    def __init__(
        self,
        registrations: Registrations,
        credentials: Credentials,
        people: People,
        service_accounts: ServiceAccounts,
    ) -> None:
        self._registrations = registrations
        self._credentials = credentials
        self._people = people
        self._own_account = service_accounts

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        """Begin a registration."""
        await self._registrations.register(from_register(request), address=current_call().address)
        return pb.RegisterResponse()

    async def RequestEmailVerification(
        self, request: pb.RequestEmailVerificationRequest, context: Any
    ) -> pb.RequestEmailVerificationResponse:
        """Have the e-mail of a registration sent again."""
        email = from_email_only(request.email)
        await self._registrations.request_verification(email, address=current_call().address)
        return pb.RequestEmailVerificationResponse()

    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Any) -> pb.VerifyEmailResponse:
        """End a registration, or a change of address."""
        password = from_verify_email(request)
        made = await self._registrations.verify(request.token, password, address=current_call().address)
        if made is not None:
            return pb.VerifyEmailResponse(person_id=str(made.person_id), organization_id=str(made.organization_id))
        person_id = await self._credentials.verify_new_email(request.token)
        if person_id is None:
            raise EmailTokenInvalid
        return pb.VerifyEmailResponse(person_id=str(person_id))

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Any
    ) -> pb.RequestPasswordResetResponse:
        """Have an e-mail sent with which a new password can be set."""
        await self._credentials.request_reset(from_email_only(request.email), address=current_call().address)
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        """Set a new password with a token from an e-mail."""
        violations = Violations()
        violations.check(bool(request.token), "token", "is missing")
        password = read_new_password(violations, "new_password", request.new_password)
        violations.raise_if_any()
        await self._credentials.reset(request.token, password, address=current_call().address)
        return pb.ResetPasswordResponse()

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Any) -> pb.ChangePasswordResponse:
        """Set another password."""
        violations = Violations()
        current = read_password(violations, "current_password", request.current_password)
        new = read_new_password(violations, "new_password", request.new_password)
        violations.raise_if_any()
        person_id, session_id = caller()
        await self._credentials.change_password(person_id, current, new, session_id=session_id)
        return pb.ChangePasswordResponse()

    async def RequestEmailChange(
        self, request: pb.RequestEmailChangeRequest, context: Any
    ) -> pb.RequestEmailChangeResponse:
        """Start a change of the caller's address."""
        violations = Violations()
        email = read_email(violations, "new_email", request.new_email)
        password = read_password(violations, "password", request.password)
        violations.raise_if_any()
        person_id, _ = caller()
        await self._credentials.request_email_change(person_id, email, password, address=current_call().address)
        return pb.RequestEmailChangeResponse()

    async def GetMe(self, request: pb.GetMeRequest, context: Any) -> pb.GetMeResponse:
        """Say who the caller is."""
        principal = current_principal()
        answer = pb.GetMeResponse(
            organization_id=str(principal.organization_id),
            role=principal.role,
            platform_roles=principal.platform_roles,
        )
        if principal.kind is PrincipalKind.PERSON:
            answer.person.CopyFrom(to_person(await self._people.get(UUID(principal.subject))))
        elif principal.organization_id is not None:
            account = await self._own_account.get(principal.organization_id, UUID(principal.subject), principal)
            answer.service_account.CopyFrom(to_service_account(account))
        return answer

    async def UpdateProfile(self, request: pb.UpdateProfileRequest, context: Any) -> pb.Person:
        """Change the caller's name."""
        violations = Violations()
        check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
        violations.raise_if_any()
        return to_person(await self._people.rename(UUID(current_principal().subject), request.name))


def from_register(request: pb.RegisterRequest) -> NewRegistration:
    """Check a registration completely."""
    violations = Violations()
    email = read_email(violations, "email", request.email)
    known = (email, request.name, request.organization_name)
    password = read_new_password(violations, "password", request.password, known=known)
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    check_text(violations, "organization_name", request.organization_name, length_min=1, length_max=NAME_LENGTH_MAX)
    currency_code = read_currency_code(violations, "currency_code", request.currency_code)
    time_zone = read_time_zone(violations, "time_zone", request.time_zone)
    violations.raise_if_any()
    return NewRegistration(
        email=email,
        password=password,
        name=request.name,
        organization_name=request.organization_name,
        currency_code=currency_code,
        time_zone=time_zone,
    )


def from_email_only(text: str) -> str:
    """Check the one field `email` and return it in its one spelling."""
    violations = Violations()
    email = read_email(violations, "email", text)
    violations.raise_if_any()
    return email


def from_verify_email(request: pb.VerifyEmailRequest) -> str:
    """Check the proof of an address and return its password; a token that is none is an unknown one."""
    violations = Violations()
    violations.check(bool(request.token), "token", "is missing")
    password = read_password(violations, "password", request.password) if request.password else ""
    violations.raise_if_any()
    return password


def to_person(profile: Profile) -> pb.Person:
    """Convert what a person is shown of themselves."""
    return pb.Person(
        person_id=str(profile.person_id),
        email=profile.email,
        name=profile.name,
        second_factor=profile.second_factor,
        create_time=to_timestamp(profile.create_time),
        memberships=[to_membership(membership) for membership in profile.memberships],
    )


def to_membership(membership: NamedMembership) -> pb.Membership:
    """Convert a membership."""
    return pb.Membership(
        organization_id=str(membership.organization_id),
        organization_name=membership.organization_name,
        role=ROLES[membership.role],
        organization_state=ORGANIZATION_STATES[membership.organization_state],
        join_time=to_timestamp(membership.join_time),
    )
