"""Why mail is not sent. A wrong request is `INVALID_FIELDS` with every field that is wrong."""

from __future__ import annotations

from mesh.rpc.errors import ResourceExhausted


class EmailLimitReached(ResourceExhausted):
    """This organization has had as many e-mails within an hour as it may have; try again later."""


class MailRefused(Exception):
    """The mail server refuses this message for good."""


class MailServerUnavailable(Exception):
    """The mail server does not take the message now; it may later."""
