"""A mail server of one test: real SMTP, started and stopped when the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class MailBox:
    """What arrived, and what the server answers instead where `refusal` is set."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refusal: str | None = None

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keeps a message."""
        if self.refusal is not None:
            return self.refusal
        self.messages.append(message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        self.recipients += envelope.rcpt_tos
        return "250 kept"


@contextlib.asynccontextmanager
async def mail_server(port: int) -> AsyncIterator[MailBox]:
    """Serves SMTP on a port of this host."""
    box = MailBox()

    def protocol() -> Any:
        return SMTP(box, hostname="localhost")

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
