"""E-mail is taken once and arrives once, whatever is down meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2
from tollway.notification.v1 import notification_service_pb2 as pb

from cli.stack.ports import free_ports
from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.database.resealing import reseal
from mesh.ids import RandomIds
from mesh.jobs import Job, RetryPolicy, Worker
from mesh.rpc.client import Clients
from mesh.rpc.errors import from_grpc
from mesh.secretbox import Sealed, SecretBox
from services.auth.clients import NotificationClient
from services.auth.jobs import AuthJobs
from services.notification import service
from services.notification.model import sealing_context
from services.notification.resealing import SEALED_TABLES
from tests.support.accounts import DATA_KEY, mail, secret_box, seed_organization
from tests.support.mail import mail_server
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields, process_metadata
from tests.support.running_auth import RunningAuth, running_auth
from tests.support.running_notification import running_notification

IDS = RandomIds()
PARAMETERS = {
    "organization_name": "Acme <b>& Sons</b>",
    "key_name": "ci",
    "hint": "sk_live_1a2b…9f0e",
    "create_time": "2024-01-31T10:07:00+00:00",
}


@pytest.fixture
def smtp_port() -> int:
    (port,) = free_ports(1)
    return port


def send_request(**fields: Any) -> pb.SendEmailRequest:
    return pb.SendEmailRequest(
        **{
            "organization_id": str(IDS.uuid7()),
            "recipient": "contact@acme.example",
            "template": "api_key_created",
            "parameters": PARAMETERS,
            "idempotency_key": "job-1",
            **fields,
        }
    )


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.02)


async def states(running: Any) -> list[tuple[str, str]]:
    async with running.db.system() as tx:
        # One statement, so that a mail is not seen without its job.
        row = await tx.fetchrow("SELECT ARRAY(SELECT state FROM emails), ARRAY(SELECT state FROM jobs)")
    return list(zip(*row, strict=True))


def reaches(running: Any, expected: list[tuple[str, str]]) -> Callable[[], Any]:
    async def reached() -> bool:
        return await states(running) == expected

    return reached


async def test_a_mail_arrives_with_a_text_and_an_html_part(database: TestDatabase, smtp_port: int) -> None:
    async with mail_server(smtp_port) as box, running_notification(database, smtp_port) as running:
        answer = await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))
        await until(reaches(running, [("delivered", "done")]))
        (message,) = box.messages
        assert box.recipients == ["contact@acme.example"]
        assert message["Message-ID"] == f"<{answer.email_id}@tollway.example>"
        assert message["Subject"] == "New API key for Acme <b>& Sons</b>"
        text, html = (part.get_content() for part in message.iter_parts())
        assert "Acme <b>& Sons</b>" in text
        assert "sk_live_1a2b…9f0e" in text
        assert "Acme &lt;b&gt;&amp; Sons&lt;/b&gt;" in html


async def test_the_same_request_twice_is_one_mail(database: TestDatabase, smtp_port: int) -> None:
    request = send_request()
    async with mail_server(smtp_port) as box, running_notification(database, smtp_port) as running:
        answers = await asyncio.gather(
            *(running.stub.SendEmail(request, metadata=process_metadata("auth", "notification")) for _ in range(3))
        )
        assert len({answer.email_id for answer in answers}) == 1
        await until(reaches(running, [("delivered", "done")]))
        assert len(box.messages) == 1


async def test_an_organization_causes_no_more_mails_within_an_hour_than_it_may(
    database: TestDatabase, smtp_port: int
) -> None:
    async with running_notification(database, smtp_port, per_hour_max=3) as running:
        organization_id, metadata = str(IDS.uuid7()), process_metadata("auth", "notification")

        async def send(number: int, organization_id: str = organization_id) -> str:
            request = send_request(organization_id=organization_id, idempotency_key=str(number))
            try:
                await running.stub.SendEmail(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                received = from_grpc(error)
                assert 0 < (received.retry_after_seconds or 0) <= 3_600
                return received.reason
            return ""

        reasons = await asyncio.gather(*(send(number) for number in range(8)))
        assert (reasons.count(""), reasons.count("EMAIL_LIMIT_REACHED")) == (3, 5)
        assert await send(reasons.index("")) == ""
        assert await send(0, str(IDS.uuid7())) == ""
        async with running.db.system() as tx:
            await tx.execute("UPDATE emails SET create_time = create_time - interval '1 hour'")
        assert await send(100) == ""


async def test_everything_wrong_with_a_mail_is_told_at_once(database: TestDatabase, smtp_port: int) -> None:
    parameters = {"key_name": "two\nlines", "hint": "h", "create_time": "t", "colour": "red"}
    async with running_notification(database, smtp_port) as running:
        request = send_request(recipient="a@b.example, c@d.example", parameters=parameters)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.stub.SendEmail(request, metadata=process_metadata("auth", "notification"))
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await running.stub.SendEmail(
                send_request(template="none"), metadata=process_metadata("auth", "notification")
            )
        assert await states(running) == []
    assert {violation.field for violation in from_grpc(refused.value).violations} == {
        "recipient",
        "parameters.organization_name",
        "parameters.colour",
        "parameters.key_name",
    }
    assert [violation.field for violation in from_grpc(unknown.value).violations] == ["template"]


async def test_a_mail_waits_for_the_mail_server(database: TestDatabase, smtp_port: int) -> None:
    async with running_notification(database, smtp_port) as running:
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))

        async def tried() -> bool:
            async with running.db.system() as tx:
                return bool(await tx.fetchval("SELECT attempt_count >= 2 AND last_error IS NOT NULL FROM jobs"))

        await until(tried)
        async with mail_server(smtp_port) as box:
            await until(reaches(running, [("delivered", "done")]))
            assert len(box.messages) == 1


async def test_a_mail_that_is_refused_for_now_is_tried_again(database: TestDatabase, smtp_port: int) -> None:
    async with mail_server(smtp_port) as box, running_notification(database, smtp_port) as running:
        box.refusal = "451 later"
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))

        async def tried() -> bool:
            async with running.db.system() as tx:
                return bool(await tx.fetchval("SELECT attempt_count >= 2 FROM jobs"))

        await until(tried)
        box.refusal = None
        await until(reaches(running, [("delivered", "done")]))
        assert len(box.messages) == 1


async def test_a_mail_that_is_refused_for_good_ends_where_operators_see_it(
    database: TestDatabase, smtp_port: int
) -> None:
    async with mail_server(smtp_port) as box, running_notification(database, smtp_port) as running:
        box.refusal = "550 never"
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))
        await until(reaches(running, [("dead", "dead")]))
        async with running.db.system() as tx:
            assert await tx.fetchval("SELECT attempt_count FROM jobs") == 1
            assert "550" in await tx.fetchval("SELECT last_error FROM emails")


async def test_a_mail_server_that_stays_away_makes_a_dead_letter(database: TestDatabase, smtp_port: int) -> None:
    async with running_notification(database, smtp_port, attempts_max=2) as running:
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))
        await until(reaches(running, [("dead", "dead")]))


async def test_the_clean_up_removes_old_deliveries_and_keeps_what_was_not_delivered(
    database: TestDatabase, smtp_port: int
) -> None:
    async with mail_server(smtp_port) as box, running_notification(database, smtp_port) as running:
        for key in ("old", "fresh"):
            await running.stub.SendEmail(
                send_request(idempotency_key=key), metadata=process_metadata("auth", "notification")
            )
        await until(reaches(running, [("delivered", "done")] * 2))
        box.refusal = "550 never"
        await running.stub.SendEmail(
            send_request(idempotency_key="dead"), metadata=process_metadata("auth", "notification")
        )

        async def dead() -> bool:
            return ("dead", "dead") in await states(running)

        await until(dead)
        async with running.db.system() as tx:
            old = "now() - interval '91 days'"
            await tx.execute(
                f"UPDATE emails SET end_time = {old} WHERE state = 'dead'"
                " OR email_id = (SELECT min(email_id::text)::uuid FROM emails)"
            )
        job = Job(job_id=IDS.uuid7(), kind="clean_up", organization_id=None, payload={}, attempt_count=1)
        await running.delivery.clean_up(job)
        async with running.db.system() as tx:
            left = [row["state"] for row in await tx.fetch("SELECT state FROM emails ORDER BY state")]
        assert left == ["dead", "delivered"]


async def test_only_named_processes_may_send(database: TestDatabase, smtp_port: int) -> None:
    async with running_notification(database, smtp_port) as running:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.stub.SendEmail(send_request(), metadata=process_metadata("edge_proxy", "notification"))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@contextlib.asynccontextmanager
async def auth_worker(auth: RunningAuth, notification_address: str) -> AsyncIterator[None]:
    settings = ProcessSettings(**process_fields("auth"), notification_address=notification_address)
    clients = Clients(settings, process="auth")
    worker = Worker(
        db=auth.db,
        name="auth",
        handlers=AuthJobs(
            db=auth.db, notification=NotificationClient(clients), mail=mail(), box=secret_box(), clock=SystemClock()
        ).handlers(),
        clock=SystemClock(),
        ids=IDS,
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


@pytest.mark.parametrize("smtp_is_late", [False, True])
async def test_creating_a_key_mails_the_organizations_contact_once(
    database: TestDatabase, smtp_port: int, smtp_is_late: bool
) -> None:
    organization = await seed_organization(database.dsn("auth_system"), "acme")
    async with contextlib.AsyncExitStack() as stack:
        auth = await stack.enter_async_context(running_auth(database))
        running = await stack.enter_async_context(running_notification(database, smtp_port))
        await stack.enter_async_context(auth_worker(auth, running.address))
        if not smtp_is_late:
            box = await stack.enter_async_context(mail_server(smtp_port))
        request = auth_service_pb2.CreateApiKeyRequest(
            organization_id=str(organization.organization_id), name="ci", idempotency_key="create-1"
        )
        owner = auth.person(organization.owner_id, organization.organization_id)
        created = await auth.stub.CreateApiKey(request, metadata=owner)
        assert await auth.stub.CreateApiKey(request, metadata=owner) == created
        if smtp_is_late:

            async def tried() -> bool:
                async with running.db.system() as tx:
                    return bool(await tx.fetchval("SELECT attempt_count >= 2 FROM jobs"))

            await until(tried)
            box = await stack.enter_async_context(mail_server(smtp_port))
        await until(reaches(running, [("delivered", "done")]))
        (message,) = box.messages
        assert box.recipients == ["contact@acme.example"]
        body = message.get_body(("plain",)).get_content()
        assert created.api_key.hint in body
        assert created.secret not in message.as_string()


async def test_with_notification_down_the_mail_is_sent_later(database: TestDatabase, smtp_port: int) -> None:
    organization = await seed_organization(database.dsn("auth_system"), "acme")
    (port,) = free_ports(1)
    async with running_auth(database) as auth, auth_worker(auth, f"127.0.0.1:{port}"):
        request = auth_service_pb2.CreateApiKeyRequest(organization_id=str(organization.organization_id), name="ci")
        owner = auth.person(organization.owner_id, organization.organization_id)
        assert (await auth.stub.CreateApiKey(request, metadata=owner)).secret

        async def tried() -> bool:
            async with auth.db.system() as tx:
                return bool(await tx.fetchval("SELECT last_error IS NOT NULL AND state <> 'dead' FROM jobs"))

        await until(tried)


async def test_what_an_e_mail_says_is_stored_sealed_until_it_was_delivered(
    database: TestDatabase, smtp_port: int
) -> None:
    token = "a-token-that-nobody-else-may-read"
    parameters = {"link": "https://d.example/reset-password", "expire_time": "soon", "token": token}
    request = send_request(template="password_reset", parameters=parameters)
    async with running_notification(database, smtp_port) as running:
        await running.stub.SendEmail(request, metadata=process_metadata("auth", "notification"))
        async with running.db.system() as tx:
            rows = await tx.fetch("SELECT emails::text AS row FROM emails UNION ALL SELECT jobs::text FROM jobs")
            assert await tx.fetchval("SELECT sealed_parameters IS NOT NULL AND parameters IS NULL FROM emails")
        assert not [row for row in rows if token in row["row"] or token.encode().hex() in row["row"]]
        async with mail_server(smtp_port) as box:
            await until(reaches(running, [("delivered", "done")]))
            assert f"https://d.example/reset-password#token={token}" in str(
                box.messages[0].get_body(("plain",)).get_content()
            )
        async with running.db.system() as tx:
            left = "SELECT count(*) FROM emails WHERE num_nonnulls(parameters, sealed_parameters, data_key_version) > 0"
            assert await tx.fetchval(left) == 0


async def test_sealed_bytes_of_another_e_mail_are_not_sent(database: TestDatabase, smtp_port: int) -> None:
    async with running_notification(database, smtp_port) as running:
        for key in ("mine", "theirs"):
            await running.stub.SendEmail(
                send_request(idempotency_key=key), metadata=process_metadata("auth", "notification")
            )
        async with running.db.system() as tx:
            await tx.execute(
                "UPDATE jobs SET run_time = now() + interval '1 hour', state = 'queued', lease_id = NULL,"
                " lease_expire_time = NULL"
            )
        admin = await asyncpg.connect(database.dsn("admin"))
        await admin.execute(
            "UPDATE notification.emails AS e SET sealed_parameters = o.sealed_parameters"
            " FROM notification.emails AS o WHERE e.email_id <> o.email_id"
        )
        await admin.execute("UPDATE notification.jobs SET run_time = now(), state = 'queued'")
        await admin.close()
        async with mail_server(smtp_port) as box:
            await until(reaches(running, [("dead", "dead")] * 2))
            assert box.messages == []


async def test_mails_of_the_installation_are_limited_by_recipient(
    database: TestDatabase, smtp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PER_RECIPIENT_AND_HOUR_MAX", 2)
    async with running_notification(database, smtp_port, per_hour_max=1) as running:

        async def send(number: int, recipient: str) -> str:
            request = send_request(
                organization_id=str(service.INSTALLATION), recipient=recipient, idempotency_key=str(number)
            )
            try:
                await running.stub.SendEmail(request, metadata=process_metadata("auth", "notification"))
            except grpc.aio.AioRpcError as error:
                return from_grpc(error).reason
            return ""

        reasons = await asyncio.gather(*(send(number, "ada@example.com") for number in range(5)))
        assert (reasons.count(""), reasons.count("EMAIL_LIMIT_REACHED")) == (2, 3)
        assert await send(5, "grace@example.com") == ""


async def test_an_e_mail_that_an_older_release_took_is_delivered(database: TestDatabase, smtp_port: int) -> None:
    async with running_notification(database, smtp_port) as running:
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))
        admin = await asyncpg.connect(database.dsn("admin"))
        await admin.execute(
            "UPDATE notification.emails SET sealed_parameters = NULL, data_key_version = NULL, parameters = $1",
            json.dumps(PARAMETERS),
        )
        await admin.close()
        async with mail_server(smtp_port) as box:
            await until(reaches(running, [("delivered", "done")]))
            assert len(box.messages) == 1


async def test_data_keys_rotate_under_e_mails_that_wait(database: TestDatabase, smtp_port: int) -> None:
    new_key = bytes(range(64, 96))
    both, new = SecretBox({1: DATA_KEY, 2: new_key}), SecretBox({2: new_key})
    async with running_notification(database, smtp_port) as running:
        await running.stub.SendEmail(send_request(), metadata=process_metadata("auth", "notification"))
        (table,) = SEALED_TABLES
        assert (await reseal(running.db, both, table)).sealed_count == 1
        async with running.db.system() as tx:
            row = await tx.fetchrow("SELECT * FROM emails")
        sealed = Sealed(key_version=row["data_key_version"], ciphertext=row["sealed_parameters"])
        opened = new.open(sealed, sealing_context(row["organization_id"], row["email_id"]))
        assert json.loads(opened) == PARAMETERS
        assert (await reseal(running.db, both, table)).sealed_count == 0
