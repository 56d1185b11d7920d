"""Calls to other services: one channel each, made when first needed.

Every unary call has a deadline (`DEADLINE_SECONDS` unless told otherwise). An RPC that its proto calls idempotent
(`idempotency_level`) is retried on UNAVAILABLE, within a budget that dries up while a service is down (gRFC A6), so
retries cannot multiply an outage. Metadata carries who calls, the request id and, where sampled, the trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, cast
from uuid import UUID

import grpc.aio
import structlog
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import ServiceDescriptor
from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from tollway.billing.v1 import billing_service_pb2_grpc
from tollway.metering.v1 import metering_service_pb2_grpc
from tollway.notification.v1 import notification_service_pb2_grpc
from tollway.ratelimit.v1 import ratelimit_service_pb2_grpc

from contract.services import SERVICES
from mesh.clock import Clock, SystemClock
from mesh.config import ProcessSettings
from mesh.observability import TRACEPARENT, current_traceparent
from mesh.rpc.access import Principal, PrincipalKind, Verifier
from mesh.rpc.interceptors import REQUEST_ID
from mesh.rpc.principals import Principals
from mesh.rpc.process_tokens import ProcessTokens
from mesh.rpc.server import KEEPALIVE_MS, MESSAGE_BYTES_MAX
from mesh.rpc.stream_watch import StreamWatch
from mesh.rpc.tls import channel_credentials

DEADLINE_SECONDS: Final = 5.0
RETRY_ATTEMPTS_MAX: Final = 3
RETRY_BUDGET_TOKENS: Final = 10
RETRY_BUDGET_RATIO: Final = 0.1
PRINCIPALS_BACKOFF_SECONDS_MAX: Final = 1.0
"""Short: what was revoked while the stream was away is in force once it is back."""


class _Attach(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Adds deadline, credentials, request id and trace to a unary call, unless the caller gave its own.

    The service config could hold the deadline too, but gRPC was measured to end such calls after 3 to 4 of 5 seconds.
    """

    def __init__(self, metadata: Callable[[], list[tuple[str, str]]]) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Pass the call on with its metadata completed."""
        given = list(details.metadata or ())
        names = {key for key, _ in given}
        metadata = grpc.aio.Metadata(*given, *(pair for pair in self._metadata() if pair[0] not in names))
        return await continuation(
            grpc.aio.ClientCallDetails(
                method=details.method,
                timeout=DEADLINE_SECONDS if details.timeout is None else details.timeout,
                metadata=metadata,
                credentials=details.credentials,
                wait_for_ready=details.wait_for_ready,
            ),
            request,
        )


class Clients:
    """Stubs of all services for one process.

    Args:
        settings: Where they are, this process's key, and everybody's public keys.
        process: This process's name in access rules.
        clock: For tokens.
    """

    def __init__(self, settings: ProcessSettings, *, process: str, clock: Clock | None = None) -> None:
        self._settings = settings
        self._process = process
        self._credentials = channel_credentials(settings)
        self._tokens = ProcessTokens(seed=settings.process_seed, process=process, clock=clock or SystemClock())
        self._channels: dict[str, grpc.aio.Channel] = {}

    @cached_property
    def auth(self) -> auth_service_pb2_grpc.AuthServiceAsyncStub:
        """Stub of the auth service."""
        return auth_service_pb2_grpc.AuthServiceStub(self.channel("auth"))

    @cached_property
    def ratelimit(self) -> ratelimit_service_pb2_grpc.RateLimitServiceAsyncStub:
        """Stub of the limiter."""
        return ratelimit_service_pb2_grpc.RateLimitServiceStub(self.channel("ratelimit"))

    @cached_property
    def metering(self) -> metering_service_pb2_grpc.MeteringServiceAsyncStub:
        """Stub of the metering service."""
        return metering_service_pb2_grpc.MeteringServiceStub(self.channel("metering"))

    @cached_property
    def billing(self) -> billing_service_pb2_grpc.BillingServiceAsyncStub:
        """Stub of the billing service."""
        return billing_service_pb2_grpc.BillingServiceStub(self.channel("billing"))

    @cached_property
    def notification(self) -> notification_service_pb2_grpc.NotificationServiceAsyncStub:
        """Stub of the notification service."""
        return notification_service_pb2_grpc.NotificationServiceStub(self.channel("notification"))

    def channel(self, service: str) -> grpc.aio.Channel:
        """Return the channel to a service by its name, for generic calls."""
        if service not in self._channels:
            address = str(getattr(self._settings, f"{service}_address"))
            self._channels[service] = open_channel(
                address, SERVICES[service].descriptor, lambda: self.metadata(service), self._credentials
            )
        return self._channels[service]

    def metadata(self, service: str) -> list[tuple[str, str]]:
        """Return credentials for one service with the current request id and trace; streams must be given it."""
        return [("authorization", self._tokens.bearer(service)), *request_metadata()]

    def watch_principals(self, principals: Principals) -> StreamWatch[auth_service_pb2.WatchPrincipalsResponse]:
        """Return what keeps `principals` in step with `auth` while it runs."""
        return StreamWatch(
            "principals",
            lambda: self.auth.WatchPrincipals(
                auth_service_pb2.WatchPrincipalsRequest(), metadata=self.metadata("auth"), wait_for_ready=False
            ),
            begin=principals.begin_snapshot,
            receive=principals.receive,
            reconnect=lambda: self.reopen("auth"),
            backoff_seconds_max=PRINCIPALS_BACKOFF_SECONDS_MAX,
        )

    def verifier(self, clock: Clock, principals: Principals) -> Verifier:
        """Return a verifier that asks `auth` for keys and service accounts, and knows what `principals` says."""

        async def fetch_jwks() -> str:
            answer = await self.auth.GetJwks(auth_service_pb2.GetJwksRequest())
            return str(answer.jwks_json)

        async def resolve(token: str) -> Principal | None:
            answer = await self.auth.ResolveServiceAccount(auth_service_pb2.ResolveServiceAccountRequest(token=token))
            return service_account_principal(answer, token)

        return Verifier(
            process_keys=self._settings.process_keys,
            audience=self._process,
            fetch_jwks=fetch_jwks,
            resolve_service_account=resolve,
            clock=clock,
            principals=principals,
        )

    async def reopen(self, service: str) -> None:
        """Leave a channel behind whose line may be dead: the next call opens another; calls in flight may end."""
        channel = self._channels.pop(service, None)
        self.__dict__.pop(service, None)
        if channel is not None:
            await channel.close(DEADLINE_SECONDS)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close(None)


def service_account_principal(answer: auth_service_pb2.ResolveServiceAccountResponse, token: str) -> Principal | None:
    """Read a principal out of the answer of `auth`; None where the token is not valid."""
    if not answer.valid:
        return None
    return Principal(
        kind=PrincipalKind.SERVICE_ACCOUNT,
        subject=answer.service_account_id,
        organization_id=UUID(answer.organization_id),
        role=answer.role,
        platform_roles=tuple(answer.platform_roles),
        token=token,
    )


def request_metadata() -> list[tuple[str, str]]:
    """Return the current request id and trace, and nobody's credentials."""
    pairs = []
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        pairs.append((REQUEST_ID, str(request_id)))
    traceparent = current_traceparent()
    if traceparent:
        pairs.append((TRACEPARENT, traceparent))
    return pairs


def forward(principal: Principal) -> list[tuple[str, str]]:
    """Return metadata that makes a call in the name of the person or service account that called us."""
    return [("authorization", f"Bearer {principal.token}")]


def open_channel(
    address: str,
    service: ServiceDescriptor,
    metadata: Callable[[], list[tuple[str, str]]],
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Open a channel to one service.

    Args:
        address: `host:port`, or any gRPC target.
        service: What is called over it; its options say what may be retried.
        metadata: Sent with every unary call.
        credentials: Of TLS; None means that TLS is off.
    """
    options = channel_options(service)
    interceptors = [cast(Any, _Attach(metadata))]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


def channel_options(service: ServiceDescriptor) -> tuple[tuple[str, Any], ...]:
    """Return the options of a channel to one service."""
    return (
        ("grpc.service_config", json.dumps(service_config(service))),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        # A restarted service is found again at once, not after gRPC's default of up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.use_local_subchannel_pool", 1),
    )


def service_config(service: ServiceDescriptor) -> dict[str, Any]:
    """Return gRPC's service config for a service: retries with a budget, balancing over all addresses."""
    methods = []
    for method in service.methods:
        entry: dict[str, Any] = {"name": [{"service": service.full_name, "method": method.name}]}
        is_unary = not (method.client_streaming or method.server_streaming)
        if is_unary and method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN:
            entry["retryPolicy"] = {
                "maxAttempts": RETRY_ATTEMPTS_MAX,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
        methods.append(entry)
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": methods,
        "retryThrottling": {"maxTokens": RETRY_BUDGET_TOKENS, "tokenRatio": RETRY_BUDGET_RATIO},
    }
