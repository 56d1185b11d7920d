"""Exporting and erasing people on the wire."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.database.idempotency import Mutation, mutation
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.erasure import Erasure
from services.auth.password_rules import read_password
from services.auth.person_export import PersonExport
from services.auth.rpc.fields import check_text

REASON_LENGTH_MAX: Final = 500
CODE_LENGTH_MAX: Final = 50


class PrivacyRpcs:
    """What people may ask for who want to know what is stored, or want to be forgotten.

    Args:
        person_export: Exports.
        erasure: Erases.
    """

    def __init__(self, person_export: PersonExport, erasure: Erasure) -> None:
        self._person_export = person_export
        self._erasure = erasure

    async def ExportMe(self, request: pb.ExportMeRequest, context: Any) -> pb.ExportPersonResponse:
        """Export the caller."""
        return pb.ExportPersonResponse(export_json=await self._person_export.of_self(_caller()))

    async def ExportPerson(self, request: pb.ExportPersonRequest, context: Any) -> pb.ExportPersonResponse:
        """Export somebody."""
        violations = Violations()
        person_id = violations.read_uuid("person_id", request.person_id)
        violations.raise_if_any()
        return pb.ExportPersonResponse(export_json=await self._person_export.of(person_id))

    async def EraseMe(self, request: pb.EraseMeRequest, context: Any) -> pb.ErasePersonResponse:
        """Erase the caller."""
        violations = Violations()
        password = read_password(violations, "password", request.password)
        is_code = len(request.second_factor_code) <= CODE_LENGTH_MAX
        violations.check(is_code, "second_factor_code", f"must have at most {CODE_LENGTH_MAX} characters")
        violations.raise_if_any()
        await self._erasure.erase_self(_caller(), password, request.second_factor_code)
        return pb.ErasePersonResponse()

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        """Erase somebody."""
        principal = current_principal()
        violations = Violations()
        person_id = violations.read_uuid("person_id", request.person_id)
        check_text(violations, "reason", request.reason, length_min=1, length_max=REASON_LENGTH_MAX)
        violations.raise_if_any()
        asked: Mutation[None, pb.ErasePersonResponse] = mutation(
            request,
            organization_id=principal.organization_id or UUID(int=0),
            principal=principal.subject,
            answer_type=pb.ErasePersonResponse,
            to_answer=lambda _: pb.ErasePersonResponse(),
        )
        return await self._erasure.erase(person_id, request.reason, asked)


def _caller() -> UUID:
    return UUID(current_principal().subject)
