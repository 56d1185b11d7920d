"""Auth on the wire: protobuf in, protobuf out, no rules. One module per resource, with its converters."""

from __future__ import annotations

from tollway.auth.v1 import auth_service_pb2_grpc

from mesh.clock import Clock
from mesh.pagination import PageTokens
from mesh.rpc.process_tokens import ProcessKeys
from services.auth.denials import Denials
from services.auth.key_changes import KeyChanges
from services.auth.keys import ApiKeys
from services.auth.organization_states import OrganizationStates
from services.auth.people import People
from services.auth.registrations import Registrations
from services.auth.rpc.api_keys import ApiKeyRpcs
from services.auth.rpc.audit import AuditRpcs
from services.auth.rpc.grants import GrantRpcs
from services.auth.rpc.organizations import OrganizationRpcs
from services.auth.rpc.people import PeopleRpcs
from services.auth.rpc.sessions import SessionRpcs
from services.auth.service import Accounts
from services.auth.sessions import Sessions


class AuthHandler(
    ApiKeyRpcs,
    GrantRpcs,
    OrganizationRpcs,
    PeopleRpcs,
    SessionRpcs,
    AuditRpcs,
    auth_service_pb2_grpc.AuthServiceServicer,
):
    """Handles the RPCs of `AuthService`.

    Args:
        accounts: Organizations, look-ups of keys and service accounts, audit.
        organization_states: States of organizations.
        keys: Creating, listing and revoking API keys.
        sessions: Signing in.
        registrations: Registering.
        people: What people see and change of themselves.
        denials: Is told of denied calls.
        key_changes: Watching keys.
        page_tokens: Pages.
        clock: For checking that an expiry lies ahead.
        process_keys: The public keys of all processes; prove that one of ours named an address.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        organization_states: OrganizationStates,
        keys: ApiKeys,
        sessions: Sessions,
        registrations: Registrations,
        people: People,
        denials: Denials,
        key_changes: KeyChanges,
        page_tokens: PageTokens,
        clock: Clock,
        process_keys: ProcessKeys,
    ) -> None:
        ApiKeyRpcs.__init__(self, keys, page_tokens, clock)
        GrantRpcs.__init__(self, accounts, key_changes)
        OrganizationRpcs.__init__(self, accounts, organization_states)
        PeopleRpcs.__init__(self, registrations, people)
        SessionRpcs.__init__(self, sessions, accounts, process_keys)
        AuditRpcs.__init__(self, accounts, denials, page_tokens, process_keys)
