"""Invitations on the wire."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.call import current_call
from mesh.rpc.errors import Violations
from services.auth.invitation_answers import InvitationAnswers
from services.auth.invitations import Invitations
from services.auth.invited_registrations import InvitedRegistrations
from services.auth.model import Invitation, InvitationState, Role
from services.auth.password_rules import read_new_password
from services.auth.rpc.fields import check_text, read_email, to_timestamp
from services.auth.rpc.members import read_role
from services.auth.rpc.mutations import asked_by_caller
from services.auth.rpc.people import NAME_LENGTH_MAX, to_membership
from services.auth.rpc.sessions import ROLES, to_tokens

INVITATION_STATES: Final = {
    InvitationState.PENDING: pb.INVITATION_STATE_PENDING,
    InvitationState.ACCEPTED: pb.INVITATION_STATE_ACCEPTED,
    InvitationState.DECLINED: pb.INVITATION_STATE_DECLINED,
    InvitationState.CANCELLED: pb.INVITATION_STATE_CANCELLED,
    InvitationState.EXPIRED: pb.INVITATION_STATE_EXPIRED,
}
_STATE_OF: Final = {
    pb.INVITATION_STATE_UNSPECIFIED: InvitationState.PENDING,
    **{number: state for state, number in INVITATION_STATES.items()},
}


class InvitationRpcs:
    """Inviting people, and answering invitations.

    Args:
        invitations: The rules of inviting.
        answers: The rules of answering.
        invited: Makes accounts of people who were invited.
        page_tokens: Pages.
    """

    def __init__(
        self,
        invitations: Invitations,
        answers: InvitationAnswers,
        invited: InvitedRegistrations,
        page_tokens: PageTokens,
    ) -> None:
        self._invitations = invitations
        self._answers = answers
        self._invited = invited
        self._invitation_pages = page_tokens

    async def InviteMember(self, request: pb.InviteMemberRequest, context: Any) -> pb.Invitation:
        """Invite somebody."""
        organization_id, email, role = from_invite(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Invitation, to_invitation, organization_id=organization_id)
        return await self._invitations.invite(organization_id, email, role, principal, asked)

    async def ListInvitations(self, request: pb.ListInvitationsRequest, context: Any) -> pb.ListInvitationsResponse:
        """List an organization's invitations."""
        organization_id, state = from_invitation_listing(request)
        listing = f"invitations/{organization_id}/{state.value}"
        wanted = self._invitation_pages.read(
            page_size=request.page_size, page_token=request.page_token, listing=listing
        )
        found = await self._invitations.list(
            organization_id, state, before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        ids = [invitation.invitation_id for invitation in found]
        page = self._invitation_pages.page(found, ids, request=wanted, listing=listing)
        return pb.ListInvitationsResponse(
            invitations=[to_invitation(each) for each in page.rows], next_page_token=page.next_page_token
        )

    async def CancelInvitation(self, request: pb.CancelInvitationRequest, context: Any) -> pb.Invitation:
        """Take an invitation back."""
        organization_id, invitation_id = from_invitation_name(request)
        asked = asked_by_caller(request, pb.Invitation, to_invitation, organization_id=organization_id)
        return await self._invitations.cancel(organization_id, invitation_id, current_principal(), asked)

    async def ResendInvitation(self, request: pb.ResendInvitationRequest, context: Any) -> pb.Invitation:
        """Send an invitation again."""
        organization_id, invitation_id = from_invitation_name(request)
        principal = current_principal()
        asked = asked_by_caller(request, pb.Invitation, to_invitation, organization_id=organization_id)
        return await self._invitations.resend(organization_id, invitation_id, principal, asked)

    async def ListMyInvitations(
        self, request: pb.ListMyInvitationsRequest, context: Any
    ) -> pb.ListMyInvitationsResponse:
        """List the invitations that wait for the caller."""
        found = await self._answers.list_for(UUID(current_principal().subject))
        return pb.ListMyInvitationsResponse(invitations=[to_invitation(each) for each in found])

    async def AcceptInvitation(self, request: pb.AcceptInvitationRequest, context: Any) -> pb.Membership:
        """Join an organization by an invitation to the caller's address."""
        invitation_id, principal = from_accept(request), current_principal()
        asked = asked_by_caller(request, pb.Membership, to_membership)
        return await self._answers.accept(
            UUID(principal.subject), asked, token=request.token, invitation_id=invitation_id
        )

    async def RegisterByInvitation(
        self, request: pb.RegisterByInvitationRequest, context: Any
    ) -> pb.CreateSessionResponse:
        """Join an organization as somebody who has no account yet, and sign in."""
        password = from_invited_registration(request)
        tokens = await self._invited.register(
            token=request.token, name=request.name, password=password, address=current_call().address
        )
        return to_tokens(tokens)

    async def DeclineInvitation(
        self, request: pb.DeclineInvitationRequest, context: Any
    ) -> pb.DeclineInvitationResponse:
        """Decline an invitation."""
        await self._answers.decline(from_decline(request))
        return pb.DeclineInvitationResponse()


def from_invite(request: pb.InviteMemberRequest) -> tuple[UUID, str, Role]:
    """Check whom to invite and return organization, address and role."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    email = read_email(violations, "email", request.email)
    role = read_role(violations, "role", request.role)
    violations.raise_if_any()
    return organization_id, email, role


def from_invitation_listing(request: pb.ListInvitationsRequest) -> tuple[UUID, InvitationState]:
    """Check which invitations are wanted and return organization and state."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    known = request.state in _STATE_OF
    violations.check(known, "state", "must be pending, accepted, declined, cancelled or expired")
    violations.raise_if_any()
    return organization_id, _STATE_OF[request.state]


def from_invitation_name(request: pb.CancelInvitationRequest | pb.ResendInvitationRequest) -> tuple[UUID, UUID]:
    """Check a request that names an invitation and return organization and invitation."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    invitation_id = violations.read_uuid("invitation_id", request.invitation_id)
    violations.raise_if_any()
    return organization_id, invitation_id


def from_accept(request: pb.AcceptInvitationRequest) -> UUID | None:
    """Check that an invitation is named in one way, and return its id where it is named by that."""
    violations = Violations()
    one = bool(request.token) != bool(request.invitation_id)
    violations.check(one, "token", "must be given, or else invitation_id")
    invitation_id = None
    if request.invitation_id:
        invitation_id = violations.read_uuid("invitation_id", request.invitation_id)
    violations.raise_if_any()
    return invitation_id


def from_invited_registration(request: pb.RegisterByInvitationRequest) -> str:
    """Check a registration and return its password; what depends on the address is checked where that is known."""
    violations = Violations()
    violations.check(bool(request.token), "token", "must be given")
    check_text(violations, "name", request.name, length_min=1, length_max=NAME_LENGTH_MAX)
    password = read_new_password(violations, "password", request.password, known=(request.name,))
    violations.raise_if_any()
    return password


def from_decline(request: pb.DeclineInvitationRequest) -> str:
    """Check that an invitation is named, and return its token."""
    violations = Violations()
    violations.check(bool(request.token), "token", "must be given")
    violations.raise_if_any()
    return request.token


def to_invitation(invitation: Invitation) -> pb.Invitation:
    """Convert an invitation."""
    return pb.Invitation(
        invitation_id=str(invitation.invitation_id),
        organization_id=str(invitation.organization_id),
        organization_name=invitation.organization_name,
        email=invitation.email,
        role=ROLES[invitation.role],
        state=INVITATION_STATES[invitation.state],
        inviter_id=str(invitation.inviter_id),
        create_time=to_timestamp(invitation.create_time),
        expire_time=to_timestamp(invitation.expire_time),
    )
