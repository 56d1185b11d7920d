"""Builds the message that goes over the wire (RFC 5322, with a plain text and an HTML part)."""

from __future__ import annotations

from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

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
    if not text.isprintable():
        raise ValueError("must be an e-mail address")
    # The header parser is used because `parseaddr` differs between releases on lists and odd quoting.
    try:
        header = SMTP.header_factory("To", text)
        (address,) = header.addresses
    except (HeaderParseError, IndexError, ValueError) as error:
        raise ValueError("must be an e-mail address") from error
    if header.defects or not (address.username and address.domain):
        raise ValueError("must be an e-mail address")
    return Address(address.display_name, address.username, address.domain)
