"""Organizations on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.model import NewOrganization, Organization, OrganizationFilter, OrganizationState, Standing
from services.auth.organization_states import OrganizationStates, Stated
from services.auth.organizations import Organizations
from services.auth.rpc.fields import (
    SUBJECT_LENGTH_MAX,
    check_text,
    read_currency_code,
    read_email,
    read_metadata,
    read_time_zone,
    to_timestamp,
)
from services.auth.rpc.mutations import asked_by_caller

NAME_LENGTH_MAX: Final = 200
PLAN_LENGTH_MAX: Final = 100
REASON_LENGTH_MAX: Final = 500
ORGANIZATION_STATES: Final = {
    OrganizationState.ACTIVE: pb.ORGANIZATION_STATE_ACTIVE,
    OrganizationState.SUSPENDED: pb.ORGANIZATION_STATE_SUSPENDED,
    OrganizationState.DELETED: pb.ORGANIZATION_STATE_DELETED,
}
_STATE_OF: Final = {number: state for state, number in ORGANIZATION_STATES.items()}


class OrganizationRpcs:
    """Organizations and their states.

    Args:
        organizations: The rules.
        states: The rules of their states.
        page_tokens: Pages.
    """

    def __init__(self, organizations: Organizations, states: OrganizationStates, page_tokens: PageTokens) -> None:
        self._organizations = organizations
        self._states = states
        self._organization_pages = page_tokens

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.Organization:
        """Get an organization."""
        return to_organization(await self._organizations.get(UUID(request.organization_id)))

    async def CreateOrganization(self, request: pb.CreateOrganizationRequest, context: Any) -> pb.Organization:
        """Create another organization, owned by the caller."""
        new, principal = from_create(request), current_principal()
        asked = asked_by_caller(request, pb.Organization, to_organization)
        return await self._organizations.create(new, principal, asked)

    async def ProvisionOrganization(self, request: pb.ProvisionOrganizationRequest, context: Any) -> pb.Organization:
        """Create an organization for a customer and invite its owner."""
        new, owner_email = from_provision(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Organization, to_organization)
        return await self._organizations.provision(new, owner_email, principal, asked)

    async def UpdateOrganization(self, request: pb.UpdateOrganizationRequest, context: Any) -> pb.Organization:
        """Change an organization."""
        organization_id, changes = from_update(request)
        asked = asked_by_caller(request, pb.Organization, to_organization, organization_id=organization_id)
        return await self._organizations.update(organization_id, changes, current_principal(), asked)

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Any
    ) -> pb.ListOrganizationsResponse:
        """List the organizations of the installation."""
        wanted = from_filter(request)
        listing = f"organizations/{wanted!r}"
        page_request = self._organization_pages.read(
            page_size=request.page_size, page_token=request.page_token, listing=listing
        )
        found = await self._organizations.list(wanted, before_id=page_request.after_id, limit=page_request.fetch_limit)
        ids = [organization.organization_id for organization in found]
        page = self._organization_pages.page(found, ids, request=page_request, listing=listing)
        return pb.ListOrganizationsResponse(
            organizations=[to_organization(each) for each in page.rows], next_page_token=page.next_page_token
        )

    async def SuspendOrganization(self, request: pb.SuspendOrganizationRequest, context: Any) -> pb.Organization:
        """Suspend an organization by the operator's word."""
        organization_id, reason = from_operators_word(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Organization, to_organization, organization_id=organization_id)
        return await self._states.suspend(organization_id, reason, principal, asked)

    async def ResumeOrganization(self, request: pb.ResumeOrganizationRequest, context: Any) -> pb.Organization:
        """Take the operator's suspension back."""
        organization_id, reason = from_operators_word(request)
        asked = asked_by_caller(request, pb.Organization, to_organization, organization_id=organization_id)
        return await self._states.resume(organization_id, reason, asked)

    async def DeleteOrganization(self, request: pb.DeleteOrganizationRequest, context: Any) -> pb.Organization:
        """Delete an organization for good."""
        organization_id, name = from_delete(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Organization, to_organization, organization_id=organization_id)
        return await self._organizations.delete(organization_id, name, principal, asked)

    async def SetOrganizationState(
        self, request: pb.SetOrganizationStateRequest, context: Any
    ) -> pb.SetOrganizationStateResponse:
        """Take over what billing knows about an organization."""
        organization_id, standing = from_statement(request)
        asked = asked_by_caller(request, pb.SetOrganizationStateResponse, to_stated, organization_id=organization_id)
        return await self._states.state(organization_id, standing, asked)


def from_create(request: pb.CreateOrganizationRequest) -> NewOrganization:
    """Check what a new organization is to be."""
    violations = Violations()
    new = _read_new(violations, request)
    violations.raise_if_any()
    return new


def from_provision(request: pb.ProvisionOrganizationRequest) -> tuple[NewOrganization, str]:
    """Check what a customer's organization is to be and return it and who is invited as its owner."""
    violations = Violations()
    new = _read_new(violations, request, external_id=request.external_id)
    owner_email = read_email(violations, "owner_email", request.owner_email)
    check_text(violations, "external_id", request.external_id, length_min=0, length_max=SUBJECT_LENGTH_MAX)
    violations.raise_if_any()
    return new, owner_email


def _read_new(
    violations: Violations,
    request: pb.CreateOrganizationRequest | pb.ProvisionOrganizationRequest,
    *,
    external_id: str = "",
) -> NewOrganization:
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    emails = {"contact_email": request.contact_email, "billing_email": request.billing_email}
    for field, text in emails.items():
        emails[field] = read_email(violations, field, text) if text else ""
    return NewOrganization(
        name=request.name,
        **emails,
        currency_code=read_currency_code(violations, "currency_code", request.currency_code),
        time_zone=read_time_zone(violations, "time_zone", request.time_zone),
        metadata=read_metadata(violations, "metadata", request.metadata),
        external_id=external_id,
    )


def from_update(request: pb.UpdateOrganizationRequest) -> tuple[UUID, dict[str, Any]]:
    """Check what is to change and return which organization and its new values by field."""
    violations, new = Violations(), request.organization
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    same = new.organization_id in {"", request.organization_id}
    violations.check(same, "organization.organization_id", "must be the organization, or empty")
    paths = list(dict.fromkeys(request.update_mask.paths))
    violations.check(bool(paths), "update_mask", "must name what is to change")
    changes = {path: _UPDATABLE[path](violations, new) for path in paths if path in _UPDATABLE}
    violations.check(len(changes) == len(paths), "update_mask", f"may name {', '.join(_UPDATABLE)}")
    violations.raise_if_any()
    return organization_id, changes


def _read_name(violations: Violations, new: pb.Organization) -> str:
    check_text(violations, "organization.name", new.name, length_min=1, length_max=NAME_LENGTH_MAX)
    return new.name


def _read_required(violations: Violations, field: str, text: str, read: Callable[[Violations, str, str], str]) -> str:
    """Read a field that has a default where a new organization leaves it out; one that is there has a value."""
    return read(violations, f"organization.{field}", text or "?")


_UPDATABLE: Final[dict[str, Callable[[Violations, pb.Organization], Any]]] = {
    "name": _read_name,
    "contact_email": lambda violations, new: read_email(violations, "organization.contact_email", new.contact_email),
    "billing_email": lambda violations, new: read_email(violations, "organization.billing_email", new.billing_email),
    "currency_code": lambda violations, new: _read_required(
        violations, "currency_code", new.currency_code, read_currency_code
    ),
    "time_zone": lambda violations, new: _read_required(violations, "time_zone", new.time_zone, read_time_zone),
    "metadata": lambda violations, new: read_metadata(violations, "organization.metadata", new.metadata),
}


def from_filter(request: pb.ListOrganizationsRequest) -> OrganizationFilter:
    """Check which organizations are wanted."""
    violations = Violations()
    check_text(violations, "name_contains", request.name_contains, length_min=0, length_max=NAME_LENGTH_MAX)
    check_text(violations, "external_id", request.external_id, length_min=0, length_max=SUBJECT_LENGTH_MAX)
    known = request.state == pb.ORGANIZATION_STATE_UNSPECIFIED or request.state in _STATE_OF
    violations.check(known, "state", "must be active, suspended or deleted")
    violations.raise_if_any()
    return OrganizationFilter(
        name_contains=request.name_contains, state=_STATE_OF.get(request.state), external_id=request.external_id
    )


def from_operators_word(
    request: pb.SuspendOrganizationRequest | pb.ResumeOrganizationRequest,
) -> tuple[UUID, str]:
    """Check a word of the operator and return whom it is about and why it is said."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    check_text(violations, "reason", request.reason, length_min=1, length_max=REASON_LENGTH_MAX)
    violations.raise_if_any()
    return organization_id, request.reason


def from_delete(request: pb.DeleteOrganizationRequest) -> tuple[UUID, str]:
    """Check which organization is to be deleted and return it and its name as typed."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    violations.raise_if_any()
    return organization_id, request.name


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
