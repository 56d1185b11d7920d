"""What the gateway counts. Labels come from descriptors, the schema and fixed words, never from a request."""

from __future__ import annotations

from typing import Final

import grpc
from prometheus_client import Counter, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_requests = Counter(
    "tollway_gateway_requests_total", "HTTP requests by route template and status.", ("route", "status")
)
_request_seconds = Histogram(
    "tollway_gateway_request_seconds", "Time to answer an HTTP request.", ("route",), buckets=_SECONDS
)
_rpcs = Counter("tollway_gateway_rpcs_total", "Calls to services.", ("rpc", "code"))
_rpc_seconds = Histogram("tollway_gateway_rpc_seconds", "Time that services took.", ("rpc",), buckets=_SECONDS)
_operations = Counter("tollway_gateway_graphql_operations_total", "GraphQL operations.", ("kind", "outcome"))
_refusals = Counter("tollway_gateway_refusals_total", "Requests refused by the gateway itself.", ("reason",))


def request_done(route: str, status: int, seconds: float) -> None:
    """Count an HTTP request; `route` is a template."""
    _requests.labels(route, str(status)).inc()
    _request_seconds.labels(route).observe(seconds)


def rpc_done(rpc: str, code: grpc.StatusCode, seconds: float) -> None:
    """Count a call to a service; `rpc` is its full name."""
    _rpcs.labels(rpc, code.name).inc()
    _rpc_seconds.labels(rpc).observe(seconds)


def operation_done(kind: str, outcome: str) -> None:
    """Count a GraphQL operation; `kind` is query, mutation or none, `outcome` is ok, error or refused."""
    _operations.labels(kind, outcome).inc()


def refused(reason: str) -> None:
    """Count a request that the gateway refused."""
    _refusals.labels(reason).inc()
