"""Auth on the wire: protobuf in, protobuf out, no rules. One module per resource, with its converters."""

from __future__ import annotations

from tollway.auth.v1 import auth_service_pb2_grpc

from mesh.clock import Clock
from mesh.pagination import PageTokens
from services.auth.audit_reading import AuditReading
from services.auth.credentials import Credentials
from services.auth.denials import Denials
from services.auth.erasure import Erasure
from services.auth.families import SessionFamilies
from services.auth.invitation_answers import InvitationAnswers
from services.auth.invitations import Invitations
from services.auth.invited_registrations import InvitedRegistrations
from services.auth.key_changes import KeyChanges
from services.auth.key_edits import KeyEdits
from services.auth.key_imports import KeyImports
from services.auth.key_uses import KeyUses
from services.auth.keys import ApiKeys
from services.auth.members import Members
from services.auth.organization_states import OrganizationStates
from services.auth.organizations import Organizations
from services.auth.people import People
from services.auth.person_export import PersonExport
from services.auth.principal_changes import PrincipalChanges
from services.auth.registrations import Registrations
from services.auth.rpc.api_key_edits import ApiKeyEditRpcs
from services.auth.rpc.api_key_imports import ApiKeyImportRpcs
from services.auth.rpc.api_keys import ApiKeyRpcs
from services.auth.rpc.audit import AuditRpcs
from services.auth.rpc.grants import GrantRpcs
from services.auth.rpc.invitations import InvitationRpcs
from services.auth.rpc.members import MemberRpcs
from services.auth.rpc.organizations import OrganizationRpcs
from services.auth.rpc.people import PeopleRpcs
from services.auth.rpc.principals import PrincipalRpcs
from services.auth.rpc.privacy import PrivacyRpcs
from services.auth.rpc.second_factors import SecondFactorRpcs
from services.auth.rpc.service_accounts import ServiceAccountRpcs
from services.auth.rpc.sessions import SessionRpcs
from services.auth.second_factors import SecondFactors
from services.auth.service import Accounts
from services.auth.service_accounts import ServiceAccounts
from services.auth.sessions import Sessions
from services.auth.signing_keys import SigningKeys


class AuthHandler(
    ApiKeyRpcs,
    GrantRpcs,
    PrincipalRpcs,
    OrganizationRpcs,
    MemberRpcs,
    InvitationRpcs,
    PeopleRpcs,
    ApiKeyEditRpcs,
    ApiKeyImportRpcs,
    SecondFactorRpcs,
    PrivacyRpcs,
    SessionRpcs,
    ServiceAccountRpcs,
    AuditRpcs,
    auth_service_pb2_grpc.AuthServiceServicer,
):
    """Handles the RPCs of `AuthService`.

    Args:
        accounts: Look-ups of keys, audit.
        organizations: Making, changing, listing and deleting organizations.
        organization_states: States of organizations.
        audit_reading: Listing and exporting the audit log.
        members: Listing and removing members, changing their roles.
        invitations: Inviting.
        invitation_answers: Answering invitations.
        invited_registrations: Registering by an invitation.
        keys: Creating, listing and revoking API keys.
        service_accounts: Service accounts and their tokens.
        key_edits: Changing and rotating API keys.
        key_imports: Importing API keys.
        key_uses: When API keys were used.
        sessions: Signing in.
        registrations: Registering.
        credentials: Passwords and addresses.
        second_factors: Second factors.
        people: What people see and change of themselves.
        person_export: Everything that is stored about somebody.
        erasure: Erasing people.
        families: What follows a sign-in.
        signing_keys: Keys of session tokens.
        denials: Is told of denied calls.
        key_changes: Watching keys.
        principal_changes: Watching principals.
        page_tokens: Pages.
        clock: For checking that an expiry lies ahead.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        organizations: Organizations,
        organization_states: OrganizationStates,
        audit_reading: AuditReading,
        members: Members,
        invitations: Invitations,
        invitation_answers: InvitationAnswers,
        invited_registrations: InvitedRegistrations,
        keys: ApiKeys,
        service_accounts: ServiceAccounts,
        key_edits: KeyEdits,
        key_imports: KeyImports,
        key_uses: KeyUses,
        sessions: Sessions,
        registrations: Registrations,
        credentials: Credentials,
        second_factors: SecondFactors,
        people: People,
        person_export: PersonExport,
        erasure: Erasure,
        families: SessionFamilies,
        signing_keys: SigningKeys,
        denials: Denials,
        key_changes: KeyChanges,
        principal_changes: PrincipalChanges,
        page_tokens: PageTokens,
        clock: Clock,
    ) -> None:
        ApiKeyRpcs.__init__(self, keys, page_tokens, clock)
        ApiKeyEditRpcs.__init__(self, key_edits, clock)
        ApiKeyImportRpcs.__init__(self, key_imports, clock)
        GrantRpcs.__init__(self, accounts, key_changes, key_uses)
        PrincipalRpcs.__init__(self, principal_changes)
        OrganizationRpcs.__init__(self, organizations, organization_states, page_tokens)
        MemberRpcs.__init__(self, members, page_tokens)
        InvitationRpcs.__init__(self, invitations, invitation_answers, invited_registrations, page_tokens)
        SessionRpcs.__init__(self, sessions, families, signing_keys)
        ServiceAccountRpcs.__init__(self, service_accounts, page_tokens, clock)
        PeopleRpcs.__init__(self, registrations, credentials, people, service_accounts)
        SecondFactorRpcs.__init__(self, second_factors)
        PrivacyRpcs.__init__(self, person_export, erasure)
        AuditRpcs.__init__(self, accounts, audit_reading, denials, page_tokens)
