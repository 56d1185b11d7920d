"""Builds the message that goes over the wire (RFC 5322, with a plain text and an HTML part)."""

from __future__ import annotations

from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from services.notification.model import Email, Rendered


def build_message(email: Email, rendered: Rendered, *, mail_from: str, now: datetime) -> EmailMessage:
    """Return the message; its Message-ID comes from the e-mail's id, so that a second copy can be told as one."""
    message = EmailMessage(policy=SMTP)
    message["From"] = parse_mailbox(mail_from)
    message["To"] = parse_mailbox(email.recipient)
    message["Subject"] = rendered.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{email.email_id}@{parse_mailbox(mail_from).domain}>"
    # RFC 3834: no vacation notice shall answer this.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message


def parse_mailbox(text: str) -> Address:
    """Read `name <address>` or an address.

    Raises:
        ValueError: It is neither.
    """
    name, spec = parseaddr(text)
    if not text.isprintable() or spec.count("@") != 1:
        raise ValueError("must be an e-mail address")
    try:
        address = Address(name, addr_spec=spec)
    except (HeaderParseError, IndexError) as error:
        raise ValueError("must be an e-mail address") from error
    if not (address.username and address.domain):
        raise ValueError("must be an e-mail address")
    return address
