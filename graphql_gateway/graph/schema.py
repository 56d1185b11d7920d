"""The schema, and its text for the repository.

Write it with `python -m graphql_gateway.graph.schema > graphql_gateway/schema.graphql`.
"""

from __future__ import annotations

import sys
from typing import Final

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graphql_gateway.graph.cost import QueryLimits, limiter
from graphql_gateway.graph.mutation import Mutation
from graphql_gateway.graph.query import Query
from graphql_gateway.graph.scalars import SCALARS

_HEADER: Final = "# Written by `python -m graphql_gateway.graph.schema`; a test compares it with the code.\n\n"


class Schema(strawberry.Schema):
    """Strawberry's schema without its error log: the answer decides what is unexpected and logs that, once."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing."""


def build_schema(limits: QueryLimits, *, production: bool) -> Schema:
    """Return the schema.

    Args:
        limits: What a query may ask for.
        production: Whether introspection is off.
    """
    return Schema(
        query=Query,
        mutation=Mutation,
        config=StrawberryConfig(scalar_map=SCALARS),
        extensions=[limiter(limits, introspection=not production)],
    )


def schema_text() -> str:
    """Return the schema as it is kept in the repository."""
    return _HEADER + build_schema(QueryLimits(), production=False).as_str() + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
