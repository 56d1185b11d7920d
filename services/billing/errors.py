"""Why billing refuses: one class per reason."""

from __future__ import annotations

from mesh.rpc.errors import FailedPrecondition, NotFound, Unavailable


class PlanNotFound(NotFound):
    """There is no such plan."""


class SubscriptionNotFound(NotFound):
    """This organization has no subscription."""


class SubscribedToAnotherPlan(FailedPrecondition):
    """This organization is subscribed to another plan."""


class UsageUnavailable(Unavailable):
    """Usage cannot be read right now, so nothing can be priced; try again."""
