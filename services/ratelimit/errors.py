"""What ratelimit can refuse, one class per reason."""

from __future__ import annotations

from mesh.rpc.errors import InvalidArgument, NotFound


class DecisionBatchTooLarge(InvalidArgument):
    """A batch may hold at most 1,000 decisions and 1,000 give-backs."""


class PolicyNotFound(NotFound):
    """The organization has no limits yet."""
