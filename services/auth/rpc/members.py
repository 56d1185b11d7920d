"""Members of organizations on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.auth.members import Members
from services.auth.model import Member, Role
from services.auth.rpc.fields import to_timestamp
from services.auth.rpc.mutations import asked_by_caller
from services.auth.rpc.sessions import ROLES

ROLE_OF: Final = {number: role for role, number in ROLES.items()}


class MemberRpcs:
    """Listing members, changing their roles, removing them, leaving.

    Args:
        members: The rules.
        page_tokens: Pages.
    """

    def __init__(self, members: Members, page_tokens: PageTokens) -> None:
        self._members = members
        self._member_pages = page_tokens

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> pb.ListMembersResponse:
        """List an organization's members."""
        organization_id = UUID(request.organization_id)
        listing = f"members/{organization_id}"
        wanted = self._member_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        after = _read_key(wanted.after_key) if wanted.after_key else None
        found = await self._members.list(organization_id, after=after, limit=wanted.fetch_limit)
        page = self._member_pages.page(found, [_key(member) for member in found], request=wanted, listing=listing)
        return pb.ListMembersResponse(
            members=[to_member(member) for member in page.rows], next_page_token=page.next_page_token
        )

    async def ChangeMemberRole(self, request: pb.ChangeMemberRoleRequest, context: Any) -> pb.Member:
        """Change a member's role."""
        organization_id, person_id, role = from_role_change(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Member, to_member, organization_id=organization_id)
        return await self._members.change_role(organization_id, person_id, role, principal, asked)

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Any) -> pb.RemoveMemberResponse:
        """Remove a member."""
        organization_id, person_id = from_member_name(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.RemoveMemberResponse, to_removed, organization_id=organization_id)
        return await self._members.remove(organization_id, person_id, principal, asked)

    async def LeaveOrganization(
        self, request: pb.LeaveOrganizationRequest, context: Any
    ) -> pb.LeaveOrganizationResponse:
        """Leave an organization."""
        organization_id, principal = UUID(request.organization_id), current_principal()
        asked = asked_by_caller(request, pb.LeaveOrganizationResponse, to_left, organization_id=organization_id)
        return await self._members.leave(organization_id, UUID(principal.subject), asked)


def read_role(violations: Violations, field: str, number: access_pb2.Role.ValueType) -> Role:
    """Return a role; one that is none is noted and stands as the least."""
    violations.check(number in ROLE_OF, field, "must be owner, admin or member")
    return ROLE_OF.get(number, Role.MEMBER)


def from_member_name(request: pb.RemoveMemberRequest | pb.ChangeMemberRoleRequest) -> tuple[UUID, UUID]:
    """Check a request that names a member and return organization and person."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    person_id = violations.read_uuid("person_id", request.person_id)
    violations.raise_if_any()
    return organization_id, person_id


def from_role_change(request: pb.ChangeMemberRoleRequest) -> tuple[UUID, UUID, Role]:
    """Check a change of role and return organization, person and role."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    person_id = violations.read_uuid("person_id", request.person_id)
    role = read_role(violations, "role", request.role)
    violations.raise_if_any()
    return organization_id, person_id, role


def to_member(member: Member) -> pb.Member:
    """Convert a member."""
    return pb.Member(
        organization_id=str(member.organization_id),
        person_id=str(member.person_id),
        email=member.email,
        name=member.name,
        role=ROLES[member.role],
        join_time=to_timestamp(member.join_time),
        second_factor=member.second_factor,
    )


def to_removed(_member: Member) -> pb.RemoveMemberResponse:
    """Convert that somebody is no member any more."""
    return pb.RemoveMemberResponse()


def to_left(_member: Member) -> pb.LeaveOrganizationResponse:
    """Convert that the caller is no member any more."""
    return pb.LeaveOrganizationResponse()


def _key(member: Member) -> str:
    return f"{member.join_time.isoformat()} {member.person_id}"


def _read_key(key: str) -> tuple[datetime, UUID]:
    join_time, _, person_id = key.partition(" ")
    return datetime.fromisoformat(join_time), UUID(person_id)
