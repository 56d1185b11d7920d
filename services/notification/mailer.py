"""The way out for mail: a small interface, SMTP behind it, and a box in memory for tests."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

from services.notification.errors import MailRefused, MailServerUnavailable

TIMEOUT_SECONDS: Final = 10.0
_PORTS: Final = {"smtp": 25, "smtps": 465}
_PERMANENT_MIN: Final = 500


class Mailer(Protocol):
    """Hands messages to a mail server."""

    async def send(self, message: EmailMessage) -> None:
        """Send a message; it is the mail server's when this returns.

        Raises:
            MailRefused: The server will never take it.
            MailServerUnavailable: The server does not take it now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where mail goes. With `tls` the connection starts encrypted; otherwise STARTTLS is used where it is offered."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None


def parse_smtp_url(url: str) -> SmtpServer:
    """Read `smtp://[user:password@]host[:port]` or `smtps://…`.

    Raises:
        ValueError: It is neither.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must be smtp://host:port or smtps://host:port")
    return SmtpServer(
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        tls=parts.scheme == "smtps",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


class SmtpMailer:
    """Sends over SMTP (RFC 5321), one connection per message.

    Args:
        server: Where to.
    """

    def __init__(self, server: SmtpServer) -> None:
        self._server = server

    async def send(self, message: EmailMessage) -> None:
        """Send a message."""
        server = self._server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                use_tls=server.tls,
                username=server.username,
                password=server.password,
                timeout=TIMEOUT_SECONDS,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            permanent = all(refused.code >= _PERMANENT_MIN for refused in error.recipients)
            raise (MailRefused if permanent else MailServerUnavailable)(repr(error)) from error
        except aiosmtplib.SMTPResponseException as error:
            # A refused login is the operator's to mend, so the mail waits for it.
            permanent = error.code >= _PERMANENT_MIN and not isinstance(error, aiosmtplib.SMTPAuthenticationError)
            raise (MailRefused if permanent else MailServerUnavailable)(repr(error)) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailServerUnavailable(repr(error)) from error

    async def check(self) -> None:
        """Greet the server; for health.

        Raises:
            OSError, aiosmtplib.SMTPException: It does not answer.
        """
        client = aiosmtplib.SMTP(
            hostname=self._server.host, port=self._server.port, use_tls=self._server.tls, timeout=TIMEOUT_SECONDS
        )
        async with client:
            await client.noop()


class MemoryMailer:
    """Keeps messages; for tests. Set `failure` and it raises that instead."""

    def __init__(self) -> None:
        self.sent: list[EmailMessage] = []
        self.failure: Exception | None = None

    async def send(self, message: EmailMessage) -> None:
        """Keep a message."""
        if self.failure is not None:
            raise self.failure
        self.sent.append(message)
