"""Decides which requests are billed: the one place that says so, used by the edge and by metering.

The edge asks it whether a unit of quota goes back, metering asks it what to count, so the limiter's month counter and
the bill agree by construction. The table:

=====================================  ======
outcome                                billed
=====================================  ======
answered by the upstream below 500     yes
answered by the upstream with 5xx      no
answered from the response cache       yes
refused by the edge itself             no
upstream timed out or unreachable      no
upstream broke off inside its answer   no
client left before the first byte      no
client left after the first byte       yes, where the upstream's status is below 500
CORS preflight                         no
=====================================  ======

**The unit.** What quotas count and what invoices charge are *units*: a billable request counts for its `cost_units` (1
unless its route says otherwise), any other request for none. The limiter takes that many and gives as many back,
metering sums them as `billable_units`, billing rates that sum, and `X-RateLimit-*` counts in them. The number of
billable requests (`billable_count`) is for people to look at.

The client of an answer that the upstream broke off did not get what it paid for, so such an answer counts like the
other failures of the upstream.
"""

from __future__ import annotations

from typing import Final

from tollway.events.v1 import usage_event_pb2 as events

STATUS_SERVER_ERROR_MIN: Final = 500

_BILLED_BELOW_500: Final = frozenset(
    {events.OUTCOME_ANSWERED, events.OUTCOME_CACHED, events.OUTCOME_CLIENT_LEFT_DURING_ANSWER}
)


def is_billable(outcome: int, status: int, *, test_mode: bool) -> bool:
    """Tell whether a request is billed.

    Args:
        outcome: An `Outcome` of `tollway.events.v1`.
        status: The status that the upstream answered with (or the edge in its place).
        test_mode: Whether a test key was used; test requests are metered apart and never billed.
    """
    return not test_mode and outcome in _BILLED_BELOW_500 and status < STATUS_SERVER_ERROR_MIN


def gives_back(outcome: int, status: int, *, admitted: bool) -> bool:
    """Tell whether a unit that the limiter took goes back to the windows that count billable requests only.

    Test keys have windows of their own that follow the same rule, so the mode does not matter here.

    Args:
        outcome: An `Outcome` of `tollway.events.v1`.
        status: As in `is_billable`.
        admitted: Whether the limiter had allowed the request. One that the limiter refused consumed nothing; one that
            the edge refused afterwards (a body that grew too large, say) had taken its unit.
    """
    return admitted and not is_billable(outcome, status, test_mode=False)
