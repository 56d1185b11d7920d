"""Both ways out for mail keep the same contract."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.message import EmailMessage

import pytest

from cli.stack.ports import free_ports
from services.notification.errors import MailRefused, MailServerUnavailable
from services.notification.mailer import Mailer, MemoryMailer, SmtpMailer, parse_smtp_url
from tests.support.mail import mail_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A mailer, what it delivered, and how to make it fail."""

    mailer: Mailer
    delivered: Callable[[], list[EmailMessage]]
    refuse: Callable[[], None]
    go_away: Callable[[], None]


@contextlib.asynccontextmanager
async def memory() -> AsyncIterator[Way]:
    mailer = MemoryMailer()

    def fail_with(failure: Exception) -> None:
        mailer.failure = failure

    yield Way(
        mailer=mailer,
        delivered=lambda: mailer.sent,
        refuse=lambda: fail_with(MailRefused("550")),
        go_away=lambda: fail_with(MailServerUnavailable("451")),
    )


@contextlib.asynccontextmanager
async def smtp() -> AsyncIterator[Way]:
    (port,) = free_ports(1)
    async with mail_server(port) as box:

        def answer(line: str) -> None:
            box.refusal = line

        yield Way(
            mailer=SmtpMailer(parse_smtp_url(f"smtp://127.0.0.1:{port}")),
            delivered=lambda: box.messages,
            refuse=lambda: answer("550 never"),
            go_away=lambda: answer("451 later"),
        )


@pytest.fixture(params=[memory, smtp])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    async with request.param() as opened:
        yield opened


def message() -> EmailMessage:
    written = EmailMessage()
    written["From"], written["To"], written["Subject"] = "t@tollway.example", "a@acme.example", "Hello"
    written.set_content("Hello Ada\n")
    return written


async def test_a_message_is_the_servers_once_it_is_sent(way: Way) -> None:
    await way.mailer.send(message())
    (delivered,) = way.delivered()
    assert (delivered["Subject"], delivered.get_content().strip()) == ("Hello", "Hello Ada")


async def test_a_refusal_for_good_is_told_apart_from_one_for_now(way: Way) -> None:
    way.refuse()
    with pytest.raises(MailRefused):
        await way.mailer.send(message())
    way.go_away()
    with pytest.raises(MailServerUnavailable):
        await way.mailer.send(message())
    assert way.delivered() == []


async def test_a_mail_server_that_is_not_there_is_unavailable() -> None:
    (port,) = free_ports(1)
    mailer = SmtpMailer(parse_smtp_url(f"smtp://127.0.0.1:{port}"))
    with pytest.raises(MailServerUnavailable):
        await mailer.send(message())
    with pytest.raises(Exception, match="connect"):
        await mailer.check()


async def test_a_refused_login_waits_for_the_operator() -> None:
    (port,) = free_ports(1)
    async with mail_server(port):
        mailer = SmtpMailer(parse_smtp_url(f"smtp://user:wrong@127.0.0.1:{port}"))
        with pytest.raises(MailServerUnavailable):
            await mailer.send(message())


async def test_a_mail_server_that_answers_is_healthy() -> None:
    (port,) = free_ports(1)
    async with mail_server(port):
        await SmtpMailer(parse_smtp_url(f"smtp://127.0.0.1:{port}")).check()
