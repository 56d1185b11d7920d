"""The HTTP application: which path is answered by what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from google.protobuf.descriptor import ServiceDescriptor

from graphql_gateway.callers.admission import Admission
from graphql_gateway.callers.identity import PrincipalReader
from graphql_gateway.callers.sign_ins import SignIns
from graphql_gateway.config import GatewaySettings
from graphql_gateway.entrance.guard import Guard
from graphql_gateway.entrance.http import meet_expectation
from graphql_gateway.graph.schema import build_schema
from graphql_gateway.graph.view import GraphView
from graphql_gateway.health import HealthView, service_checks
from graphql_gateway.rest.jwks import PATH as JWKS_PATH
from graphql_gateway.rest.jwks import JwksView
from graphql_gateway.rest.openapi import PATH as OPENAPI_PATH
from graphql_gateway.rest.openapi import OpenApiView
from graphql_gateway.rest.routes import build_routes, words_of
from graphql_gateway.rest.view import RestView
from graphql_gateway.rpc.calls import Calls
from graphql_gateway.rpc.channels import Channels
from mesh.clock import SystemClock
from mesh.ids import IdSource
from mesh.rpc.client_address import vouched_address
from mesh.rpc.process_tokens import ProcessTokens

ANYTHING: Final = "/{path:(?s:.*)}"
"""Line feeds included: without the flag a path with `%0A` would be nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The application and what its owner has to close or tell."""

    app: web.Application
    channels: Channels
    health: HealthView

    async def close(self) -> None:
        """Close the channels."""
        await self.channels.close()


def build_gateway(
    settings: GatewaySettings,
    *,
    services: Iterable[ServiceDescriptor],
    principals: PrincipalReader,
    ids: IdSource,
    monotonic: Callable[[], float] = time.monotonic,
) -> Gateway:
    """Wire the gateway.

    Args:
        settings: What the environment says.
        services: What REST is made from, and where channels go.
        principals: Reads credentials.
        ids: Where request ids and idempotency keys come from.
        monotonic: Seconds that never go back.
    """
    described = list(services)
    channels = Channels(settings, described)
    limits = settings.admission_limits()
    admission = Admission(limits, monotonic=monotonic)
    tokens = ProcessTokens(seed=settings.process_seed, process="graphql_gateway", clock=SystemClock())
    calls = Calls(
        channels,
        admission=admission,
        sign_ins=SignIns(limits, monotonic=monotonic),
        ids=ids,
        vouch=lambda scope, service: vouched_address(tokens, scope.address, service, user_agent=scope.user_agent),
        monotonic=monotonic,
    )
    health = HealthView(service_checks(channels.all()), monotonic=monotonic)
    app = web.Application(client_max_size=settings.gateway_body_bytes_max)
    routes = build_routes(described)
    guard = Guard(
        admission=admission,
        principals=principals,
        ids=ids,
        trusted_proxies=settings.gateway_trusted_proxies,
        words=words_of(routes),
        hsts=settings.production,
        timeout_seconds=settings.gateway_request_timeout_seconds,
        monotonic=monotonic,
    )
    guard.install(app)
    query_limits = settings.query_limits()
    schema = build_schema(query_limits, production=settings.production)
    graph = GraphView(schema, calls, suggestions=not settings.production, rows_max=query_limits.rows_max)
    app.add_routes(
        [
            web.route("*", "/graphql", graph.handle, expect_handler=meet_expectation),
            web.get("/health", health.ready, expect_handler=meet_expectation),
            web.get("/health/live", health.live, expect_handler=meet_expectation),
            web.get("/health/ready", health.ready, expect_handler=meet_expectation),
            web.get(JWKS_PATH, JwksView(calls, monotonic=monotonic).get, expect_handler=meet_expectation),
            web.get(OPENAPI_PATH, OpenApiView(routes).get, expect_handler=meet_expectation),
            web.route("*", ANYTHING, RestView(routes, calls).handle, expect_handler=meet_expectation),
        ]
    )
    return Gateway(app=app, channels=channels, health=health)
