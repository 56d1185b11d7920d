"""Limits, as GraphQL shows them."""

from __future__ import annotations

from enum import Enum
from uuid import UUID

import strawberry
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from graphql_gateway.graph.scalars import Int64


@strawberry.enum(description="How a limit refills.")
class WindowKind(Enum):
    """Numbers as in the contract."""

    TOKEN_BUCKET = ratelimit.WINDOW_KIND_TOKEN_BUCKET
    CALENDAR_DAY = ratelimit.WINDOW_KIND_CALENDAR_DAY
    CALENDAR_MONTH = ratelimit.WINDOW_KIND_CALENDAR_MONTH
    SLIDING = ratelimit.WINDOW_KIND_SLIDING


@strawberry.enum(description="Whose requests share a limit.")
class WindowScope(Enum):
    """Numbers as in the contract."""

    ORGANIZATION = ratelimit.WINDOW_SCOPE_ORGANIZATION
    API_KEY = ratelimit.WINDOW_SCOPE_API_KEY
    ROUTE = ratelimit.WINDOW_SCOPE_ROUTE


@strawberry.type(description="One limit.")
class Window:
    """A window of the limiter."""

    name: str
    kind: WindowKind
    limit: Int64 = strawberry.field(description="Units that fit.")
    period_seconds: Int64 | None = strawberry.field(description="Seconds in which an empty bucket fills.")
    scope: WindowScope
    counts_billable_only: bool

    @classmethod
    def from_proto(cls, proto: ratelimit.Window) -> Window:
        """Return a limit."""
        return cls(
            name=proto.name,
            kind=WindowKind(proto.kind),
            limit=Int64(proto.limit),
            period_seconds=Int64(proto.period_seconds) if proto.period_seconds else None,
            scope=WindowScope(proto.scope),
            counts_billable_only=proto.counts_billable_only,
        )


@strawberry.type(description="The limits in force.")
class Limits:
    """The limits of an organization."""

    organization_id: UUID
    version: Int64
    windows: list[Window] = strawberry.field(description="All of these must have room.")

    @classmethod
    def from_proto(cls, proto: ratelimit.Policy) -> Limits:
        """Read what ratelimit says of a policy."""
        return cls(
            organization_id=UUID(proto.organization_id),
            version=Int64(proto.version),
            windows=[Window.from_proto(window) for window in proto.windows],
        )
