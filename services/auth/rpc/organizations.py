"""Organizations on the wire."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from services.auth.model import Organization, OrganizationState
from services.auth.rpc.fields import to_timestamp
from services.auth.service import Accounts

_ORGANIZATION_STATES: Final = {
    OrganizationState.ACTIVE: pb.ORGANIZATION_STATE_ACTIVE,
    OrganizationState.SUSPENDED: pb.ORGANIZATION_STATE_SUSPENDED,
}


class OrganizationRpcs:
    """Getting organizations.

    Args:
        accounts: The rules.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._organizations = accounts

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.Organization:
        """Get an organization."""
        return to_organization(await self._organizations.get_organization(UUID(request.organization_id)))


def to_organization(organization: Organization) -> pb.Organization:
    """Convert an organization."""
    return pb.Organization(
        organization_id=str(organization.organization_id),
        name=organization.name,
        state=_ORGANIZATION_STATES[organization.state],
        external_id=organization.external_id,
        contact_email=organization.contact_email,
        billing_email=organization.billing_email,
        currency_code=organization.currency_code,
        time_zone=organization.time_zone,
        metadata=organization.metadata,
        create_time=to_timestamp(organization.create_time),
    )
