"""The queries of all areas. Each is one RPC and its conversion; who may see what is the services' decision.

Every field is nullable, so that one that fails leaves its siblings their answers.
"""

from __future__ import annotations

import strawberry

from graphql_gateway.graph.accounts.queries import AccountQueries
from graphql_gateway.graph.billing.queries import BillingQueries
from graphql_gateway.graph.limits.queries import LimitQueries
from graphql_gateway.graph.usage.queries import UsageQueries


@strawberry.type
class Query(AccountQueries, UsageQueries, BillingQueries, LimitQueries):
    """Reads."""
