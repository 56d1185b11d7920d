"""Organizations on the wire."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.database.idempotency import mutation
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.model import Organization, OrganizationState, Standing
from services.auth.organization_states import OrganizationStates, Stated
from services.auth.rpc.fields import check_text, to_timestamp
from services.auth.service import Accounts

PLAN_LENGTH_MAX: Final = 100
ORGANIZATION_STATES: Final = {
    OrganizationState.ACTIVE: pb.ORGANIZATION_STATE_ACTIVE,
    OrganizationState.SUSPENDED: pb.ORGANIZATION_STATE_SUSPENDED,
    OrganizationState.DELETED: pb.ORGANIZATION_STATE_DELETED,
}


class OrganizationRpcs:
    """Organizations and their states.

    Args:
        accounts: Finds organizations.
        states: The rules of their states.
    """

    def __init__(self, accounts: Accounts, states: OrganizationStates) -> None:
        self._organizations = accounts
        self._states = states

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.Organization:
        """Get an organization."""
        return to_organization(await self._organizations.get_organization(UUID(request.organization_id)))

    async def SetOrganizationState(
        self, request: pb.SetOrganizationStateRequest, context: Any
    ) -> pb.SetOrganizationStateResponse:
        """Take over what billing knows about an organization."""
        organization_id, standing = from_statement(request)
        asked = mutation(
            request,
            organization_id=organization_id,
            principal=current_principal().subject,
            answer_type=pb.SetOrganizationStateResponse,
            to_answer=to_stated,
        )
        return await self._states.state(organization_id, standing, asked)


def from_statement(request: pb.SetOrganizationStateRequest) -> tuple[UUID, Standing]:
    """Check a statement of billing and return whom it is about and what it says."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    check_text(violations, "plan_id", request.plan_id, length_min=1, length_max=PLAN_LENGTH_MAX)
    violations.check(request.state_version > 0, "state_version", "must be positive")
    violations.raise_if_any()
    standing = Standing(
        plan_id=request.plan_id,
        restricted=request.restricted,
        suspended=request.suspended,
        state_version=request.state_version,
    )
    return organization_id, standing


def to_stated(stated: Stated) -> pb.SetOrganizationStateResponse:
    """Convert what is in force."""
    return pb.SetOrganizationStateResponse(organization=to_organization(stated.organization), applied=stated.applied)


def to_organization(organization: Organization) -> pb.Organization:
    """Convert an organization."""
    return pb.Organization(
        organization_id=str(organization.organization_id),
        name=organization.name,
        state=ORGANIZATION_STATES[organization.state],
        external_id=organization.external_id,
        contact_email=organization.contact_email,
        billing_email=organization.billing_email,
        currency_code=organization.currency_code,
        time_zone=organization.time_zone,
        metadata=organization.metadata,
        create_time=to_timestamp(organization.create_time),
        plan_id=organization.plan_id,
        restricted=organization.restricted,
        suspend_reason=organization.suspend_reason,
        delete_time=to_timestamp(organization.delete_time) if organization.delete_time else None,
    )
