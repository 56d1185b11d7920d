"""Auth on the wire: protobuf in, protobuf out, no rules.

The transaction of a mutation is opened here, because the idempotency key is reserved and the answer stored, as the
protobuf that the caller got, in that same transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.auth.v1 import auth_service_pb2_grpc

from mesh.client_address import client_address
from mesh.clock import Clock
from mesh.database.idempotency import Idempotency, attempt
from mesh.database.pools import Database
from mesh.pagination import PageTokens
from mesh.rpc.access import current_principal
from mesh.rpc.interceptors import Denied
from mesh.rpc.process_tokens import ProcessKeys
from services.auth import convert
from services.auth.denials import CALL, INSTALLATION, Denial, Denials
from services.auth.key_changes import KeyChanges
from services.auth.keys import ApiKeys
from services.auth.service import Accounts
from services.auth.sessions import Sessions

SERVICE = "auth"


class AuthHandler(auth_service_pb2_grpc.AuthServiceServicer):
    """Handles the RPCs of `AuthService`.

    Args:
        accounts: Organizations, look-ups of keys and service accounts, audit.
        keys: Creating, listing and revoking API keys.
        sessions: Signing in.
        denials: Is told of denied calls.
        key_changes: Watching keys.
        db: For the transaction that a mutation and its idempotency key share.
        idempotency: Replays.
        page_tokens: Pages.
        clock: For checking that an expiry lies ahead.
        process_keys: The public keys of all processes; prove that one of ours named an address.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        keys: ApiKeys,
        sessions: Sessions,
        denials: Denials,
        key_changes: KeyChanges,
        db: Database,
        idempotency: Idempotency,
        page_tokens: PageTokens,
        clock: Clock,
        process_keys: ProcessKeys,
    ) -> None:
        self._process_keys = process_keys
        self._accounts = accounts
        self._keys = keys
        self._db = db
        self._idempotency = idempotency
        self._page_tokens = page_tokens
        self._clock = clock
        self._sessions = sessions
        self._denials = denials
        self._key_changes = key_changes

    async def ResolveKeys(self, request: pb.ResolveKeysRequest, context: Any) -> pb.ResolveKeysResponse:
        """Resolve key digests to grants."""
        grants = await self._accounts.resolve_keys(convert.from_digests(request))
        return pb.ResolveKeysResponse(grants=[convert.to_grant(grant) for grant in grants])

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        """Stream a snapshot of keys and then every change."""
        async for grants, snapshot_complete in self._key_changes.watch(snapshot_keys_max=request.snapshot_keys_max):
            yield convert.to_watch_response(grants, snapshot_complete=snapshot_complete)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        """Create an API key."""
        wanted = convert.from_new_api_key(request, self._clock.now())
        principal = current_principal()
        asked = attempt(request, organization_id=wanted.organization_id, principal=principal.subject)
        async with self._db.tenant(wanted.organization_id) as tx:

            async def create() -> pb.CreateApiKeyResponse:
                api_key, secret = await self._keys.create(tx, wanted, principal)
                return pb.CreateApiKeyResponse(api_key=convert.to_api_key(api_key), secret=secret)

            return await self._idempotency.once(tx, asked, pb.CreateApiKeyResponse, create)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.ApiKey:
        """Revoke an API key."""
        organization_id, api_key_id = convert.from_key_name(request)
        principal = current_principal()
        asked = attempt(request, organization_id=organization_id, principal=principal.subject)
        async with self._db.tenant(organization_id) as tx:

            async def revoke() -> pb.ApiKey:
                return convert.to_api_key(
                    await self._keys.revoke(
                        tx, organization_id=organization_id, api_key_id=api_key_id, principal=principal
                    )
                )

            return await self._idempotency.once(tx, asked, pb.ApiKey, revoke)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        """List an organization's API keys."""
        organization_id, creator_id = convert.from_key_listing(request)
        listing = f"api_keys/{organization_id}/{creator_id or ''}"
        wanted = self._page_tokens.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._keys.list(
            organization_id, creator_id=creator_id, before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        page = self._page_tokens.page(found, [key.api_key_id for key in found], request=wanted, listing=listing)
        return pb.ListApiKeysResponse(
            api_keys=[convert.to_api_key(key) for key in page.rows], next_page_token=page.next_page_token
        )

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Any) -> pb.ApiKey:
        """Get an API key."""
        return convert.to_api_key(await self._keys.get(*convert.from_key_name(request)))

    async def BatchGetApiKeys(self, request: pb.BatchGetApiKeysRequest, context: Any) -> pb.BatchGetApiKeysResponse:
        """Get several API keys."""
        found = await self._keys.get_many(*convert.from_batch_get(request))
        return pb.BatchGetApiKeysResponse(api_keys=[convert.to_api_key(key) for key in found])

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        """List an organization's audit log."""
        organization_id = UUID(request.organization_id)
        listing = f"audit_entries/{organization_id}"
        wanted = self._page_tokens.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._accounts.list_audit_entries(
            organization_id, before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        page = self._page_tokens.page(found, [entry.audit_entry_id for entry in found], request=wanted, listing=listing)
        return pb.ListAuditEntriesResponse(
            audit_entries=[convert.to_audit_entry(entry) for entry in page.rows], next_page_token=page.next_page_token
        )

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.Organization:
        """Get an organization."""
        return convert.to_organization(await self._accounts.get_organization(UUID(request.organization_id)))

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Any) -> pb.CreateSessionResponse:
        """Sign a person in."""
        email, password, organization_id = convert.from_sign_in(request)
        metadata = dict(context.invocation_metadata() or ())
        session = await self._sessions.create(
            email=email,
            password=password,
            organization_id=organization_id,
            address=client_address(metadata, str(context.peer()), self._process_keys, SERVICE),
        )
        return convert.to_session(session)

    def note_denied(self, denied: Denied) -> None:
        """Note a call that was denied, for the audit log of the caller's organization."""
        self._denials.note(
            Denial(
                action=CALL,
                account=denied.principal.subject,
                address=client_address(denied.metadata, denied.peer, self._process_keys, SERVICE),
                reason=denied.failure.reason(),
                resource=f"rpc{denied.path}",
                organization_id=denied.principal.organization_id or INSTALLATION,
            )
        )

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
