"""Auth on the wire: protobuf in, protobuf out, no rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.auth.v1 import auth_service_pb2_grpc

from mesh.access import PrincipalKind, current_principal
from services.auth import convert
from services.auth.key_changes import KeyChanges
from services.auth.service import Accounts
from services.auth.sessions import Sessions

CLIENT_ADDRESS: Final = "x-tollway-client-address"
"""Metadata in which a process of ours says whom it calls for; nobody else is believed."""


class AuthHandler(auth_service_pb2_grpc.AuthServiceServicer):
    """Handles the RPCs of `AuthService`.

    Args:
        accounts: Organizations, keys, service accounts, audit.
        sessions: Signing in.
        key_changes: Watching keys.
    """

    def __init__(self, *, accounts: Accounts, sessions: Sessions, key_changes: KeyChanges) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._key_changes = key_changes

    async def ResolveKeys(self, request: pb.ResolveKeysRequest, context: Any) -> pb.ResolveKeysResponse:
        """Resolve key digests to grants."""
        grants = await self._accounts.resolve_keys(convert.from_digests(request))
        return pb.ResolveKeysResponse(grants=[convert.to_grant(grant) for grant in grants])

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        """Stream a snapshot of keys and then every change."""
        async for grants, snapshot_complete in self._key_changes.watch(snapshot_keys_max=request.snapshot_keys_max):
            yield convert.to_watch_response(grants, snapshot_complete=snapshot_complete)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.Organization:
        """Get an organization."""
        return convert.to_organization(await self._accounts.get_organization(UUID(request.organization_id)))

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Any) -> pb.CreateSessionResponse:
        """Sign a person in."""
        email, password, organization_id = convert.from_sign_in(request)
        session = await self._sessions.create(
            email=email, password=password, organization_id=organization_id, address=_client_address(context)
        )
        return convert.to_session(session)

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        """Publish the public keys of session tokens."""
        return pb.GetJwksResponse(jwks_json=self._sessions.jwks_json())

    async def ResolveServiceAccount(
        self, request: pb.ResolveServiceAccountRequest, context: Any
    ) -> pb.ResolveServiceAccountResponse:
        """Resolve a service account's token."""
        return convert.to_service_account(await self._accounts.resolve_service_account(request.token))

    async def AppendAuditEntries(
        self, request: pb.AppendAuditEntriesRequest, context: Any
    ) -> pb.AppendAuditEntriesResponse:
        """Append audit entries of another service."""
        appended = await self._accounts.append_audit_entries(convert.from_audit_entries(request))
        return pb.AppendAuditEntriesResponse(appended_count=appended)


def _client_address(context: Any) -> str:
    if current_principal().kind is PrincipalKind.PROCESS:
        named = dict(context.invocation_metadata() or ()).get(CLIENT_ADDRESS)
        if named:
            return str(named)
    return str(context.peer()).rpartition(":")[0]
