"""The audit log on the wire, and what goes into it because a call was denied."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from google.protobuf import json_format
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.pagination import PageTokens
from mesh.rpc.client_address import client_address
from mesh.rpc.errors import Violations
from mesh.rpc.interceptors import Denied
from mesh.rpc.process_tokens import ProcessKeys
from services.auth.audit import INSTALLATION
from services.auth.denials import CALL, Denial, Denials
from services.auth.model import AuditEntry
from services.auth.rpc.fields import SUBJECT_LENGTH_MAX, check_text, read_time, to_timestamp
from services.auth.service import Accounts

SERVICE: Final = "auth"
AUDIT_ENTRIES_MAX: Final = 1_000


class AuditRpcs:
    """Appending to the audit log and listing it.

    Args:
        accounts: The rules.
        denials: Is told of denied calls.
        page_tokens: Pages.
        process_keys: The public keys of all processes; prove that one of ours named an address.
    """

    def __init__(
        self, accounts: Accounts, denials: Denials, page_tokens: PageTokens, process_keys: ProcessKeys
    ) -> None:
        self._audit = accounts
        self._denials = denials
        self._audit_pages = page_tokens
        self._vouching_keys = process_keys

    async def AppendAuditEntries(
        self, request: pb.AppendAuditEntriesRequest, context: Any
    ) -> pb.AppendAuditEntriesResponse:
        """Append audit entries of another service."""
        appended = await self._audit.append_audit_entries(from_audit_entries(request))
        return pb.AppendAuditEntriesResponse(appended_count=appended)

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        """List an organization's audit log."""
        organization_id = UUID(request.organization_id)
        listing = f"audit_entries/{organization_id}"
        wanted = self._audit_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        found = await self._audit.list_audit_entries(
            organization_id, before_id=wanted.after_id, limit=wanted.fetch_limit
        )
        page = self._audit_pages.page(found, [entry.audit_entry_id for entry in found], request=wanted, listing=listing)
        return pb.ListAuditEntriesResponse(
            audit_entries=[to_audit_entry(entry) for entry in page.rows], next_page_token=page.next_page_token
        )

    def note_denied(self, denied: Denied) -> None:
        """Note a call that was denied, for the audit log of the caller's organization."""
        self._denials.note(
            Denial(
                action=CALL,
                account=denied.principal.subject,
                address=client_address(denied.metadata, denied.peer, self._vouching_keys, SERVICE),
                reason=denied.failure.reason(),
                resource=f"rpc{denied.path}",
                organization_id=denied.principal.organization_id or INSTALLATION,
            )
        )


def from_audit_entries(request: pb.AppendAuditEntriesRequest) -> list[AuditEntry]:
    """Check entries of another service."""
    violations = Violations()
    violations.check(len(request.entries) <= AUDIT_ENTRIES_MAX, "entries", f"must be at most {AUDIT_ENTRIES_MAX}")
    entries = [
        _from_audit_entry(violations, f"entries[{index}]", entry)
        for index, entry in enumerate(request.entries[:AUDIT_ENTRIES_MAX])
    ]
    violations.raise_if_any()
    return [entry for entry in entries if entry is not None]


def _from_audit_entry(violations: Violations, path: str, entry: pb.AuditEntry) -> AuditEntry | None:
    entry_id = violations.read_uuid(f"{path}.audit_entry_id", entry.audit_entry_id)
    organization_id = violations.read_uuid(f"{path}.organization_id", entry.organization_id)
    for name in ("actor", "action", "resource"):
        check_text(violations, f"{path}.{name}", getattr(entry, name), length_min=1, length_max=SUBJECT_LENGTH_MAX)
    create_time = read_time(violations, f"{path}.create_time", entry.create_time)
    if create_time is None:
        return None
    return AuditEntry(
        audit_entry_id=entry_id,
        organization_id=organization_id,
        actor=entry.actor,
        action=entry.action,
        resource=entry.resource,
        details=json_format.MessageToDict(entry.details),
        create_time=create_time,
        actor_kind=entry.actor_kind,
        address=entry.address,
        request_id=entry.request_id,
        before=json_format.MessageToDict(entry.before) if entry.HasField("before") else None,
        after=json_format.MessageToDict(entry.after) if entry.HasField("after") else None,
    )


def to_audit_entry(entry: AuditEntry) -> pb.AuditEntry:
    """Convert an audit entry."""
    converted = pb.AuditEntry(
        audit_entry_id=str(entry.audit_entry_id),
        organization_id=str(entry.organization_id),
        actor=entry.actor,
        action=entry.action,
        resource=entry.resource,
        create_time=to_timestamp(entry.create_time),
        actor_kind=entry.actor_kind,
        address=entry.address,
        request_id=entry.request_id,
    )
    converted.details.update(entry.details)
    if entry.before is not None:
        converted.before.update(entry.before)
    if entry.after is not None:
        converted.after.update(entry.after)
    return converted
