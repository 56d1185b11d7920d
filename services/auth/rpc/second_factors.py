"""Second factors on the wire."""

from __future__ import annotations

from typing import Any

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.auth.password_rules import read_password
from services.auth.rpc.sessions import caller
from services.auth.second_factors import SecondFactors
from services.auth.totp import CODE_LENGTH_MAX


class SecondFactorRpcs:
    """Setting a second factor up and removing it.

    Args:
        second_factors: The rules.
    """

    def __init__(self, second_factors: SecondFactors) -> None:
        self._second_factors = second_factors

    async def BeginTotpEnrollment(
        self, request: pb.BeginTotpEnrollmentRequest, context: Any
    ) -> pb.BeginTotpEnrollmentResponse:
        """Start setting up a second factor."""
        violations = Violations()
        password = read_password(violations, "password", request.password)
        violations.raise_if_any()
        person_id, _ = caller()
        enrollment = await self._second_factors.begin(person_id, password)
        return pb.BeginTotpEnrollmentResponse(secret=enrollment.secret, otpauth_uri=enrollment.otpauth_uri)

    async def ConfirmTotpEnrollment(
        self, request: pb.ConfirmTotpEnrollmentRequest, context: Any
    ) -> pb.ConfirmTotpEnrollmentResponse:
        """End setting up a second factor."""
        violations = Violations()
        check_code(violations, "code", request.code)
        violations.raise_if_any()
        person_id, session_id = caller()
        codes = await self._second_factors.confirm(person_id, request.code, session_id=session_id)
        return pb.ConfirmTotpEnrollmentResponse(recovery_codes=codes)

    async def DisableTotp(self, request: pb.DisableTotpRequest, context: Any) -> pb.DisableTotpResponse:
        """Remove the caller's second factor."""
        password = from_password_and_code(request)
        person_id, _ = caller()
        await self._second_factors.disable(person_id, password, request.code)
        return pb.DisableTotpResponse()

    async def RegenerateRecoveryCodes(
        self, request: pb.RegenerateRecoveryCodesRequest, context: Any
    ) -> pb.RegenerateRecoveryCodesResponse:
        """Replace the caller's recovery codes."""
        password = from_password_and_code(request)
        person_id, _ = caller()
        codes = await self._second_factors.regenerate(person_id, password, request.code)
        return pb.RegenerateRecoveryCodesResponse(recovery_codes=codes)


def from_password_and_code(request: pb.DisableTotpRequest | pb.RegenerateRecoveryCodesRequest) -> str:
    """Check the fields `password` and `code`, and return the password."""
    violations = Violations()
    password = read_password(violations, "password", request.password)
    check_code(violations, "code", request.code)
    violations.raise_if_any()
    return password


def check_code(violations: Violations, field: str, code: str) -> None:
    """Note a code that is missing or too long for one."""
    violations.check(0 < len(code) <= CODE_LENGTH_MAX, field, f"must have 1 to {CODE_LENGTH_MAX} characters")
