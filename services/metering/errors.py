"""What metering can refuse, one class per reason."""

from __future__ import annotations

from mesh.rpc.errors import InvalidArgument, NotFound, Unavailable


class BatchTooLarge(InvalidArgument):
    """A batch may hold at most 5,000 events."""


class JournalIdInvalid(InvalidArgument):
    """The journal's id must be a UUID."""


class NextOffsetInvalid(InvalidArgument):
    """The position behind the batch must not be negative."""


class DeadLetterNotFound(NotFound):
    """There is no such dead letter."""


class IngestUnavailable(Unavailable):
    """Events cannot be stored right now; send the batch again."""
