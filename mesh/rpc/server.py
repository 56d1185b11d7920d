"""A gRPC server as every service runs it: guarded, reflected, healthy and observable, or not started at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from contract.services import ForeignService
from mesh.clock import Clock
from mesh.config import host_port
from mesh.ids import IdSource
from mesh.rpc.access import AccessRules, Verifier
from mesh.rpc.interceptors import GuardInterceptor, OnDenied
from mesh.service.listener import Check, failing_checks

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
KEEPALIVE_MS: Final = 20_000
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    # Two servers that share a port by accident would each get half of the calls.
    ("grpc.so_reuseport", 0),
)

OfferedService = tuple[ServiceDescriptor, Callable[[Any, grpc.aio.Server], None], Any]
"""A service's descriptor, the generated function that registers it, and its handler."""

log = structlog.get_logger()


class Server:
    """A running server. Use `start`."""

    def __init__(self, server: grpc.aio.Server, port: int, servicer: _Health) -> None:
        self.port = port
        self._server = server
        self._health = servicer

    @classmethod
    async def start(
        cls,
        *,
        name: str,
        listen: str,
        services: Sequence[OfferedService],
        verifier: Verifier,
        clock: Clock,
        ids: IdSource,
        checks: Mapping[str, Check] | None = None,
        credentials: grpc.ServerCredentials | None = None,
        on_denied: OnDenied | None = None,
        foreign: Sequence[ForeignService] = (),
    ) -> Server:
        """Start serving.

        Args:
            name: The process, for the log.
            listen: `host:port`; port 0 lets the system choose.
            services: What to serve.
            verifier: Turns credentials into principals.
            clock: For durations.
            ids: For request ids.
            checks: Dependencies by name; each is a gRPC health service of its own.
            credentials: Of TLS; None means that TLS is off.
            on_denied: Is told of calls that were denied.
            foreign: Which of the services are of somebody else's contract, and what their RPCs need.

        Raises:
            RuleMissing: An RPC has no access rule.
            OSError: The address is taken.
        """
        rules = AccessRules((descriptor for descriptor, _, _ in services), foreign)
        guard = GuardInterceptor(rules=rules, verifier=verifier, clock=clock, ids=ids, on_denied=on_denied)
        server = grpc.aio.server(interceptors=[guard], options=_OPTIONS)
        for _, register, handler in services:
            register(handler, server)
        servicer = _Health(dict(checks or {}), [descriptor.full_name for descriptor, _, _ in services])
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        names = [descriptor.full_name for descriptor, _, _ in services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        port = _bind(server, listen, credentials)
        await server.start()
        log.info("serving", process=name, port=port)
        return cls(server, port, servicer)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Refuse new calls, let running ones finish, then cut what is left."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)


class _Health(health.aio.HealthServicer):  # type: ignore[name-defined, misc]  # the package ships no types
    """Health by asking: `""` and each service need all checks, `<name>` the one check."""

    def __init__(self, checks: dict[str, Check], services: list[str]) -> None:
        super().__init__()
        self._checks = checks
        self._services = {"", *services}
        self._stopping = False

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Answer SERVING, NOT_SERVING or, for an unknown name, NOT_FOUND."""
        if request.service in self._services:
            wanted = self._checks
        elif request.service in self._checks:
            wanted = {request.service: self._checks[request.service]}
        else:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        serving = not self._stopping and not await failing_checks(wanted)
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status)

    async def enter_graceful_shutdown(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._stopping = True
        await super().enter_graceful_shutdown()


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    host_port(listen)
    try:
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: the address is taken") from error
    if port == 0:
        raise OSError(f"cannot listen on {listen}: the address is taken")
    return port
