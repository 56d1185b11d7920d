"""How much of the gateway one address, one caller and one organization may use.

Token buckets (`mesh.buckets`): a request takes one token, and whoever finds none is told when there will be one. With
N gateways behind a balancer a caller gets up to N times as much, which is accepted, because these limits protect the
gateway and slow guessing down, and are not what anyone is billed by.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from graphql_gateway import errors, metrics
from graphql_gateway.callers.addresses import network_of
from graphql_gateway.callers.identity import Identity
from graphql_gateway.failure import Failure
from mesh.buckets import Buckets

SECONDS_PER_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Requests a minute or a day, each also the size of a burst.

    Attributes:
        address_per_minute: Requests of one address.
        principal_per_minute: Requests of one person or service account.
        organization_per_minute: Requests of everybody in one organization.
        change_principal_per_minute: Changes of one person or service account; an alias is a change of its own.
        change_organization_per_minute: Changes of everybody in one organization.
        change_organization_per_day: The same over a day: what a patient member may pile up.
        sign_in_address_per_minute: Failed sign-ins from one address, whomever they name.
        sign_in_pair_per_minute: Failed sign-ins from one address that name one account.
        sign_in_account_per_minute: Failed sign-ins that name one account, from all addresses together.
    """

    address_per_minute: int = 1_200
    principal_per_minute: int = 600
    organization_per_minute: int = 3_000
    change_principal_per_minute: int = 30
    change_organization_per_minute: int = 120
    change_organization_per_day: int = 2_000
    sign_in_address_per_minute: int = 30
    sign_in_pair_per_minute: int = 10
    sign_in_account_per_minute: int = 30


class Admission:
    """Decides whether the gateway works for a caller now.

    Args:
        limits: Requests a minute.
        monotonic: Seconds that never go back.
    """

    def __init__(self, limits: AdmissionLimits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        def buckets(per_minute: int) -> Buckets:
            return Buckets(per_minute, monotonic=monotonic)

        self._addresses = buckets(limits.address_per_minute)
        self._principals = buckets(limits.principal_per_minute)
        self._organizations = buckets(limits.organization_per_minute)
        self._change_principals = buckets(limits.change_principal_per_minute)
        self._change_organizations = buckets(limits.change_organization_per_minute)
        self._change_organizations_daily = Buckets(
            limits.change_organization_per_day, monotonic=monotonic, period_seconds=SECONDS_PER_DAY
        )

    def admit_address(self, address: str) -> None:
        """Take a request from an address, before anything else is done for it.

        Raises:
            Failure: RATE_LIMITED.
        """
        take_or_refuse(self._addresses, network_of(address), "address")

    def admit_identity(self, identity: Identity) -> None:
        """Take a request from a caller and its organization; anonymous callers have only an address.

        Raises:
            Failure: RATE_LIMITED.
        """
        if not identity.known:
            return
        take_or_refuse(self._principals, identity.subject, "principal")
        if identity.organization_id is not None:
            take_or_refuse(self._organizations, str(identity.organization_id), "organization")

    def admit_change(self, identity: Identity, address: str) -> None:
        """Take one change: it costs rows, jobs and mails. Each field of a document that changes something asks here.

        The organization is the one that the credentials are for. The one that a request names may be another tenant's,
        whose allowance is nobody else's to use up.

        Args:
            identity: Who asks. A caller that is not known is counted by its address.
            address: Where the request comes from.

        Raises:
            Failure: RATE_LIMITED.
        """
        caller = identity.subject if identity.known else network_of(address)
        take_or_refuse(self._change_principals, caller, "change_principal")
        if identity.organization_id is not None:
            organization = str(identity.organization_id)
            take_or_refuse(self._change_organizations, organization, "change_organization")
            take_or_refuse(self._change_organizations_daily, organization, "change_organization_day")


def take_or_refuse(buckets: Buckets, name: str, dimension: str) -> None:
    """Take a token, or say for what there is none and when there will be one.

    Raises:
        Failure: RATE_LIMITED.
    """
    wait_seconds = buckets.take(name)
    if wait_seconds > 0.0:
        raise refusal(dimension, wait_seconds)


def refusal(dimension: str, wait_seconds: float) -> Failure:
    """Return the refusal of a request, counted."""
    metrics.refused(f"rate_{dimension}")
    return Failure.of(errors.RateLimited(metadata={"limited_by": dimension}, retry_after_seconds=wait_seconds))
