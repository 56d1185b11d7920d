"""The mutations of all areas. A replay with the same idempotency key answers what the first answered."""

from __future__ import annotations

import strawberry

from graphql_gateway.graph.accounts.mutations import AccountMutations
from graphql_gateway.graph.billing.mutations import BillingMutations


@strawberry.type
class Mutation(AccountMutations, BillingMutations):
    """Changes."""
