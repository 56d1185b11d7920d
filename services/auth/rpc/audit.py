"""The audit log on the wire, and what goes into it because a call was denied."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from google.protobuf import json_format
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.audit import denial_of
from mesh.pagination import PageTokens
from mesh.rpc.errors import Violations
from mesh.rpc.interceptors import Denied
from services.auth.audit_files import AuditFormat
from services.auth.audit_reading import AuditReading
from services.auth.denials import Denials
from services.auth.model import AuditEntry, AuditFilter, AuditPlace
from services.auth.rpc.fields import SUBJECT_LENGTH_MAX, check_text, read_time, to_timestamp
from services.auth.service import Accounts

SERVICE: Final = "auth"
AUDIT_ENTRIES_MAX: Final = 1_000
ENTRY_BYTES_MAX: Final = 64 * 1024
EXPORT_PART_BYTES_MAX: Final = 256 * 1024
ACTOR_LENGTH_MAX: Final = 254
_ACTION: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_ACTIONS: Final = re.compile(r"[a-z][a-z0-9_]*\.([a-z][a-z0-9_]*|\*)")
_FORMATS: Final = {
    pb.AUDIT_EXPORT_FORMAT_UNSPECIFIED: AuditFormat.JSON_LINES,
    pb.AUDIT_EXPORT_FORMAT_JSONL: AuditFormat.JSON_LINES,
    pb.AUDIT_EXPORT_FORMAT_CSV: AuditFormat.CSV,
}


class AuditRpcs:
    """Appending to the audit log, listing and exporting it.

    Args:
        accounts: Appends.
        reading: Lists and exports.
        denials: Is told of denied calls.
        page_tokens: Pages.
    """

    def __init__(
        self,
        accounts: Accounts,
        reading: AuditReading,
        denials: Denials,
        page_tokens: PageTokens,
    ) -> None:
        self._audit = accounts
        self._reading = reading
        self._denials = denials
        self._audit_pages = page_tokens

    async def AppendAuditEntries(
        self, request: pb.AppendAuditEntriesRequest, context: Any
    ) -> pb.AppendAuditEntriesResponse:
        """Append audit entries of another service."""
        appended = await self._audit.append_audit_entries(from_audit_entries(request))
        return pb.AppendAuditEntriesResponse(appended_count=appended)

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        """List an organization's audit log."""
        organization_id, wanted = from_audit_query(request)
        # The token of one filter is none of another: the rest of a list would be the rest of nothing.
        listing = f"audit_entries/{organization_id}/{wanted}"
        asked = self._audit_pages.read(page_size=request.page_size, page_token=request.page_token, listing=listing)
        after = from_place_text(asked.after_key) if asked.after_key else None
        found = await self._reading.page(organization_id, wanted, after=after, limit=asked.fetch_limit)
        page = self._audit_pages.page(found, [to_place_text(entry) for entry in found], request=asked, listing=listing)
        return pb.ListAuditEntriesResponse(
            audit_entries=[to_audit_entry(entry) for entry in page.rows], next_page_token=page.next_page_token
        )

    async def ExportAuditEntries(
        self, request: pb.ExportAuditEntriesRequest, context: Any
    ) -> AsyncIterator[pb.ExportAuditEntriesResponse]:
        """Export an organization's audit log."""
        organization_id, wanted = from_audit_query(request)
        written_as = from_export_format(request.format)
        until = await self._reading.begin_export(organization_id, wanted, written_as=written_as.value)
        yield pb.ExportAuditEntriesResponse(content=written_as.head())
        async with contextlib.aclosing(self._reading.parts(organization_id, until)) as parts:
            async for part in parts:
                content = written_as.write(part)
                for at in range(0, len(content), EXPORT_PART_BYTES_MAX):
                    yield pb.ExportAuditEntriesResponse(content=content[at : at + EXPORT_PART_BYTES_MAX])

    def note_denied(self, denied: Denied) -> None:
        """Note a call that was denied, for the audit log of the caller's organization."""
        self._denials.note(denial_of(denied))


def from_audit_query(
    request: pb.ListAuditEntriesRequest | pb.ExportAuditEntriesRequest,
) -> tuple[UUID, AuditFilter]:
    """Check what is asked for and return organization and filter."""
    violations = Violations()
    organization_id = violations.read_uuid("organization_id", request.organization_id)
    given = request.filter
    check_text(violations, "filter.actor", given.actor, length_min=0, length_max=ACTOR_LENGTH_MAX)
    check_text(violations, "filter.resource", given.resource, length_min=0, length_max=SUBJECT_LENGTH_MAX)
    right = not given.action or (
        len(given.action) <= SUBJECT_LENGTH_MAX and _ACTIONS.fullmatch(given.action) is not None
    )
    violations.check(right, "filter.action", "must be an action such as api_key.create, or api_key.* for all of a kind")
    start_time = read_time(violations, "filter.start_time", given.start_time) if given.HasField("start_time") else None
    end_time = read_time(violations, "filter.end_time", given.end_time) if given.HasField("end_time") else None
    if start_time is not None and end_time is not None:
        violations.check(start_time < end_time, "filter.end_time", "must be after start_time")
    violations.raise_if_any()
    return organization_id, AuditFilter(
        actor=given.actor, action=given.action, resource=given.resource, start_time=start_time, end_time=end_time
    )


def from_export_format(number: int) -> AuditFormat:
    """Check what a file is to be written as."""
    violations = Violations()
    violations.check(number in _FORMATS, "format", "must be JSON Lines or CSV")
    violations.raise_if_any()
    return _FORMATS[pb.AuditExportFormat.ValueType(number)]


def to_place_text(entry: AuditEntry) -> str:
    """Write where an entry stands, for a page token."""
    return f"{entry.create_time.isoformat()} {entry.audit_entry_id}"


def from_place_text(text: str) -> AuditPlace:
    """Read where an entry stands."""
    create_time, _, audit_entry_id = text.partition(" ")
    return AuditPlace(create_time=datetime.fromisoformat(create_time), audit_entry_id=UUID(audit_entry_id))


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
    for name in ("actor", "resource"):
        check_text(violations, f"{path}.{name}", getattr(entry, name), length_min=1, length_max=SUBJECT_LENGTH_MAX)
    for name in ("actor_kind", "address", "request_id"):
        check_text(violations, f"{path}.{name}", getattr(entry, name), length_min=0, length_max=SUBJECT_LENGTH_MAX)
    is_action = len(entry.action) <= SUBJECT_LENGTH_MAX and _ACTION.fullmatch(entry.action) is not None
    violations.check(is_action, f"{path}.action", "must be an action such as api_key.create")
    is_small = entry.ByteSize() <= ENTRY_BYTES_MAX
    violations.check(is_small, path, f"must have at most {ENTRY_BYTES_MAX} bytes")
    create_time = read_time(violations, f"{path}.create_time", entry.create_time)
    if create_time is None or not is_small:
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
