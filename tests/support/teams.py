"""People, invitations and organizations for the tests of teams."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from tollway.options.v1 import access_pb2

from contract import key_format
from mesh.ids import RandomIds
from mesh.jobs.queue import to_job
from mesh.rpc.errors import ReceivedError, from_grpc
from tests.support.accounts import PEPPER, mail, seed_person
from tests.support.machine_tokens import machine_token
from tests.support.mail_room import Letter

ROLES = {"owner": access_pb2.ROLE_OWNER, "admin": access_pb2.ROLE_ADMIN, "member": access_pb2.ROLE_MEMBER}
Metadata = list[tuple[str, str]]


async def refusal(call: Any) -> ReceivedError:
    """Waits for a call that has to fail and returns why it did."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def execute(auth: Any, sql: str, *values: Any) -> None:
    async with auth.db.system() as tx:
        await tx.execute(sql, *values)


async def fetch(auth: Any, sql: str, *values: Any) -> list[Any]:
    async with auth.db.system() as tx:
        return list(await tx.fetch(sql, *values))


async def until_waiting(auth: Any, count: int) -> None:
    """Returns once so many transactions wait for another's lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    # No other role sees what everybody waits for.
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    try:
        async with asyncio.timeout(60):
            while await admin.fetchval(waiting) < count:
                await asyncio.sleep(0.01)
    finally:
        await admin.close()


async def seed_member(auth: Any, organization_id: UUID, name: str, role: str) -> UUID:
    """Inserts a person who is a member; `<name>@people.example` is theirs."""
    return await seed_person(auth.database.dsn("auth_system"), organization_id, f"{name}@people.example", role)


async def seed_stranger(auth: Any, email: str) -> UUID:
    """Inserts a person who is a member of nothing."""
    person_id = RandomIds().uuid7()
    await execute(
        auth, "INSERT INTO people (person_id, email, name, create_time) VALUES ($1, $2, 'Str', now())", person_id, email
    )
    return person_id


async def seed_service_account(
    auth: Any, organization_id: UUID, role: str, *, platform_role: str | None = None
) -> tuple[UUID, Metadata]:
    """Inserts a service account and returns its id and what it calls with."""
    account_id = RandomIds().uuid7()
    token = machine_token(account_id.hex)
    await execute(
        auth,
        "INSERT INTO service_accounts (organization_id, service_account_id, name, role, platform_role, digest,"
        " pepper_version, hint, create_time, expire_time) VALUES ($1, $2, 'robot', $3, $4, $5, 1, 'tw_sa_', now(), $6)",
        organization_id,
        account_id,
        role,
        platform_role,
        key_format.digest(token, PEPPER),
        datetime.now(UTC) + timedelta(hours=1),
    )
    return account_id, [("authorization", f"Bearer {token}")]


async def sent(auth: Any, template: str) -> list[Letter]:
    """Returns the e-mails of a template that were written down, the oldest first; they stay there."""
    rows = await fetch(auth, "SELECT * FROM jobs WHERE kind = 'send_email' ORDER BY job_id")
    found = [to_job(row) for row in rows]
    return [
        Letter(template=template, recipient=job.payload["recipient"], facts=mail().facts_of(job))
        for job in found
        if job.payload["template"] == template
    ]


async def newest_token(auth: Any, email: str) -> str:
    """Returns the token of the newest invitation that was sent to an address."""
    return [each for each in await sent(auth, "invitation") if each.recipient == email][-1].token


async def audited(auth: Any, action: str) -> list[Any]:
    """Returns the audit log's entries with an action, the oldest first; JSON is read, what is set aside put back."""
    rows = await fetch(auth, "SELECT * FROM audit_entries WHERE action = $1 ORDER BY audit_entry_id", action)
    values = await fetch(auth, "SELECT audit_entry_id, position, value FROM audit_personal_values")
    found = []
    for row in rows:
        entry = dict(row)
        for name in ("before", "after", "details"):
            text = row[name] or "null"
            for each in values:
                if each["audit_entry_id"] == row["audit_entry_id"]:
                    text = text.replace(f"(personal {each['position']})", each["value"])
            entry[name] = json.loads(text)
        found.append(entry)
    return found
