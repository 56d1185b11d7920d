"""Tokens from e-mails lie in no table and no log line: people use them, and auth and notification run as they do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from cli.stack.ports import free_ports
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.jobs import RetryPolicy, Worker
from mesh.rpc.client import Clients
from services.auth.account_mail import AccountMail
from services.auth.clients import NotificationClient
from services.auth.jobs import AuthJobs
from services.auth.one_time import OneTimeTokens
from tests.support.accounts import PASSWORD, PEPPER, mail, secret_box, seed_organization
from tests.support.mail import MailBox, mail_server
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields
from tests.support.running_auth import RunningAuth, running_auth
from tests.support.running_notification import running_notification

EMAIL = "ada@example.com"
NEW_EMAIL = "ada@new.example"
INVITED = "grace@example.com"
NEW_PASSWORD = "another pass phrase altogether"
TOKEN = re.compile(r"#token=([A-Za-z0-9_-]+)")


@contextlib.asynccontextmanager
async def auth_worker(auth: RunningAuth, notification_address: str) -> AsyncIterator[None]:
    settings = ProcessSettings(**process_fields("auth"), notification_address=notification_address)
    clients, clock = Clients(settings, process="auth"), SystemClock()
    notification = NotificationClient(clients)
    tokens = OneTimeTokens(peppers={1: PEPPER}, random_bytes=secrets.token_bytes)
    worker = Worker(
        db=auth.db,
        name="auth",
        handlers={
            **AuthJobs(db=auth.db, notification=notification, mail=mail(), box=secret_box(), clock=clock).handlers(),
            **AccountMail(db=auth.db, mail=mail(), tokens=tokens, clock=clock).handlers(),
        },
        clock=clock,
        ids=RandomIds(),
        retry=RetryPolicy(first_seconds=0.05, seconds_max=0.2),
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await task
        await clients.close()


async def token_to(box: MailBox, recipient: str, count: int) -> str:
    """Waits for the n-th message to a mailbox and returns its token."""
    async with asyncio.timeout(60):
        while box.recipients.count(recipient) < count:
            await asyncio.sleep(0.02)
    messages = [message for message, to in zip(box.messages, box.recipients, strict=True) if to == recipient]
    (token,) = set(TOKEN.findall(messages[count - 1].get_body(("plain",)).get_content()))
    return token


async def all_rows(database: TestDatabase) -> list[str]:
    """Returns every row of every table of every service, as PostgreSQL writes it; bytea in hex."""
    admin = await asyncpg.connect(database.dsn("admin"))
    tables = await admin.fetch(
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname = ANY($1)",
        ["auth", "notification", "billing", "metering", "ratelimit"],
    )
    rows = [
        row["row"] for table in tables for row in await admin.fetch(f"SELECT t::text AS row FROM {table['name']} t")
    ]
    await admin.close()
    return rows


def spellings(secret: str) -> list[str]:
    """Returns what a secret may lie in a table as."""
    raw = secret.encode()
    found = [secret, raw.hex(), base64.b64encode(raw).decode()]
    with contextlib.suppress(ValueError):
        found.append(base64.urlsafe_b64decode(secret + "=").hex())
    return found


async def test_no_token_lies_in_clear_in_any_table_or_log_line(
    database: TestDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    (smtp_port,) = free_ports(1)
    other = await seed_organization(database.dsn("auth_system"))
    async with contextlib.AsyncExitStack() as stack:
        auth = await stack.enter_async_context(running_auth(database))
        running = await stack.enter_async_context(running_notification(database, smtp_port))
        # Mail waits at first, so that the tables are also read while there is something in them.
        register = pb.RegisterRequest(email=EMAIL, password=PASSWORD, name="Ada", organization_name="Engines")
        await auth.stub.Register(register)
        await auth.stub.RequestPasswordReset(pb.RequestPasswordResetRequest(email=other.email))
        await stack.enter_async_context(auth_worker(auth, running.address))
        async with asyncio.timeout(60):
            while True:
                rows = await all_rows(database)
                async with running.db.system() as tx:
                    if await tx.fetchval("SELECT count(*) FROM emails WHERE sealed_parameters IS NOT NULL") == 2:
                        break
                await asyncio.sleep(0.02)
        rows = await all_rows(database)
        box = await stack.enter_async_context(mail_server(smtp_port))
        tokens = {"verify": await token_to(box, EMAIL, 1), "reset": await token_to(box, other.email, 1)}
        await auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=tokens["verify"], password=PASSWORD))
        await auth.stub.ResetPassword(pb.ResetPasswordRequest(token=tokens["reset"], new_password=NEW_PASSWORD))
        session: Any = await auth.stub.CreateSession(pb.CreateSessionRequest(email=EMAIL, password=PASSWORD))
        signed_in = [("authorization", f"Bearer {session.access_token}")]
        change = pb.RequestEmailChangeRequest(new_email=NEW_EMAIL, password=PASSWORD)
        await auth.stub.RequestEmailChange(change, metadata=signed_in)
        tokens["change"] = await token_to(box, NEW_EMAIL, 1)
        invite = pb.InviteMemberRequest(
            organization_id=session.organization_id, email=INVITED, role=access_pb2.ROLE_MEMBER
        )
        await auth.stub.InviteMember(invite, metadata=signed_in)
        tokens["invitation"] = await token_to(box, INVITED, 1)
        rows += await all_rows(database)
        await auth.stub.VerifyEmail(pb.VerifyEmailRequest(token=tokens["change"]))
        join = pb.RegisterByInvitationRequest(token=tokens["invitation"], name="Grace", password=PASSWORD)
        await auth.stub.RegisterByInvitation(join)
        tokens |= {"access": session.access_token, "refresh": session.refresh_token}
        secret_words = {**tokens, "password": PASSWORD, "new password": NEW_PASSWORD}
        rows += await all_rows(database)
    logged = capfd.readouterr()
    assert len(rows) > 20
    assert "VerifyEmail" in logged.out
    for name, secret in secret_words.items():
        for spelling in spellings(secret):
            assert not [row for row in rows if spelling in row], name
            assert spelling not in logged.out + logged.err, name
