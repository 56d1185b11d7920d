"""What a service tells the audit log, which `auth` keeps.

**Changes.** `enqueue` writes a job in the transaction of the change, so there is no change without its entry; a worker
hands the entry on (`AuditTrail.append`), under the job's id, so that it stands there once. Auth may be away meanwhile.
Who calls, from where and within which request is taken from the call that is being handled.

**Denials** are counted (`mesh/rpc/denials`) and handed on in batches, without a job for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import grpc
import grpc.aio
from tollway.auth.v1 import auth_service_pb2

from mesh import jobs
from mesh.database.connection import Connection
from mesh.rpc.access import PrincipalKind, current_principal
from mesh.rpc.call import current_call
from mesh.rpc.denials import CountedDenial, Denial
from mesh.rpc.interceptors import Denied

APPEND: Final = "append_audit_entry"
INSTALLATION: Final = UUID(int=0)
"""What belongs to no organization is listed under this one."""
DENIED_CALL: Final = "rpc.deny"


async def enqueue(
    tx: Connection,
    *,
    job_id: UUID,
    organization_id: UUID,
    action: str,
    resource: str,
    now: datetime,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Have an entry appended once the transaction is committed.

    Args:
        tx: The transaction of the change, within a call.
        job_id: A new UUIDv7; it becomes the entry's id.
        organization_id: Whose log it belongs to.
        action: `<resource>.<verb>`, for example `subscription.create`.
        resource: `<resource>/<id>`.
        now: When it happens.
        before: What was there, as far as it changed; values that JSON has, no secrets, nothing about people but ids.
        after: What is there now, likewise.
        details: Whatever else, likewise.
    """
    principal, call = current_principal(), current_call()
    payload = {
        "actor": principal.subject or principal.kind.name.lower(),
        "actor_kind": principal.kind.name.lower(),
        "action": action,
        "resource": resource,
        "address": call.address,
        "request_id": call.request_id,
        "details": dict(details or {}),
        "before": None if before is None else dict(before),
        "after": None if after is None else dict(after),
        "time_us": int(now.timestamp() * 1_000_000),
    }
    await jobs.enqueue(tx, APPEND, payload, job_id=job_id, organization_id=organization_id)


class AuditTrail:
    """Hands entries on to `auth`.

    Args:
        auth: Stub of the service.
    """

    def __init__(self, auth: Any) -> None:
        self._auth = auth

    async def append(self, job: jobs.Job) -> None:
        """Append what `enqueue` has written down.

        Raises:
            PermanentFailure: Auth will never take it.
            grpc.aio.AioRpcError: It does not take it now.
        """
        try:
            await self._send([to_entry(job)])
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise jobs.PermanentFailure(repr(error)) from error
            raise

    async def append_denials(self, denials: Sequence[CountedDenial]) -> None:
        """Append a batch of denials.

        Raises:
            grpc.aio.AioRpcError: Auth does not take it now.
        """
        await self._send([to_denial_entry(denial) for denial in denials])

    async def _send(self, entries: Sequence[auth_service_pb2.AuditEntry]) -> None:
        await self._auth.AppendAuditEntries(auth_service_pb2.AppendAuditEntriesRequest(entries=entries))


def denial_of(denied: Denied) -> Denial:
    """Return what is counted of a call that was denied; it belongs to the caller's organization."""
    principal = denied.principal
    return Denial(
        action=DENIED_CALL,
        source=principal.subject,
        actor=principal.subject,
        actor_kind=principal.kind.name.lower(),
        address=denied.address,
        reason=denied.failure.reason(),
        resource=f"rpc{denied.path}",
        organization_id=None if principal.kind is PrincipalKind.PROCESS else principal.organization_id,
    )


def denial_details(counted: CountedDenial) -> dict[str, Any]:
    """Return what an entry says about a denial beside who and where."""
    return {
        "reason": counted.denial.reason,
        "count": counted.count,
        "first_time": counted.first_time.isoformat(),
    }


def to_entry(job: jobs.Job) -> auth_service_pb2.AuditEntry:
    """Convert a job; one that an older release wrote says less."""
    payload = job.payload
    entry = auth_service_pb2.AuditEntry(
        audit_entry_id=str(job.job_id),
        organization_id=str(job.organization_id),
        actor=payload["actor"],
        actor_kind=payload.get("actor_kind", ""),
        action=payload["action"],
        resource=payload["resource"],
        address=payload.get("address", ""),
        request_id=payload.get("request_id", ""),
    )
    entry.details.update(payload["details"])
    if payload.get("before") is not None:
        entry.before.update(payload["before"])
    if payload.get("after") is not None:
        entry.after.update(payload["after"])
    entry.create_time.FromMicroseconds(payload["time_us"])
    return entry


def to_denial_entry(counted: CountedDenial) -> auth_service_pb2.AuditEntry:
    """Convert a counted denial."""
    denial = counted.denial
    entry = auth_service_pb2.AuditEntry(
        audit_entry_id=str(counted.denial_id),
        organization_id=str(denial.organization_id or INSTALLATION),
        actor=denial.actor,
        actor_kind=denial.actor_kind,
        action=denial.action,
        resource=denial.resource,
        address=denial.address,
    )
    entry.details.update(denial_details(counted))
    entry.create_time.FromDatetime(counted.last_time)
    return entry
