"""How often anybody may ask for an e-mail: to an address and from an address.

Both are counted before it is known whether the address has an account, so a refusal tells nothing. An address that was
asked for from elsewhere is not refused here: otherwise strangers could keep its owner from asking. How many e-mails one
mailbox gets is decided where they are written (`account_mail.py`), in the database.

Buckets live in this process (`mesh/buckets.py`): bounded, forgotten with a restart, and each replica has its own.
"""

from __future__ import annotations

from typing import Final

from mesh.buckets import Buckets
from mesh.clock import Clock
from services.auth.errors import EmailRequestsThrottled
from services.auth.throttle import network_of

PER_EMAIL_AND_NETWORK_MAX: Final = 5
PER_NETWORK_MAX: Final = 60
PERIOD_SECONDS: Final = 3_600.0


class EmailRequests:
    """The budgets of asking for e-mails.

    Args:
        clock: Monotonic time.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._pairs = Buckets(PER_EMAIL_AND_NETWORK_MAX, monotonic=clock.monotonic, period_seconds=PERIOD_SECONDS)
        self._networks = Buckets(PER_NETWORK_MAX, monotonic=clock.monotonic, period_seconds=PERIOD_SECONDS)

    def count(self, email: str, address: str) -> None:
        """Count a request.

        Args:
            email: Where the e-mail would go.
            address: Where the request comes from.

        Raises:
            EmailRequestsThrottled: There were too many.
        """
        network = network_of(address)
        pair = f"{email}\0{network}"
        wait_seconds = max(self._pairs.wait_seconds(pair), self._networks.wait_seconds(network))
        if wait_seconds > 0:
            raise EmailRequestsThrottled(retry_after_seconds=wait_seconds)
        self._pairs.spend(pair)
        self._networks.spend(network)
