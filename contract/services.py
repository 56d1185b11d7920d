"""The catalogue of services: what they are called, what they serve and where they are found by default.

Everything that lists services reads it: the clients' channels, migrations and schemas, the local stack's ports and
database roles, the default addresses of the configuration, and the documents that a test compares with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from tollway.auth.v1 import auth_service_pb2
from tollway.billing.v1 import billing_service_pb2
from tollway.external.envoy.service.auth.v3 import external_auth_pb2
from tollway.metering.v1 import metering_service_pb2
from tollway.notification.v1 import notification_service_pb2
from tollway.options.v1 import access_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2

LOOPBACK: Final = "127.0.0.1"

API: Final = "api"
CONSUMER: Final = "consumer"
WORKER: Final = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignService:
    """A gRPC service of somebody else's contract that one of ours answers as well.

    Args:
        descriptor: As it was published.
        access: What its RPCs would say in `(tollway.options.v1.access)` if the contract were ours, by name.
    """

    descriptor: ServiceDescriptor
    access: Mapping[str, access_pb2.Access]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service.

    Args:
        name: Its folder below `services` and `migrations`, its process name in access rules and its schema.
        descriptor: Its gRPC service.
        rpc_port: Where it serves gRPC, unless it is told otherwise.
        metrics_port: Where it serves health and metrics over HTTP, unless it is told otherwise.
        roles: What `--role` may name; a process has all of them by default.
        foreign: What else it answers on the same port.
    """

    name: str
    descriptor: ServiceDescriptor
    rpc_port: int
    metrics_port: int
    roles: tuple[str, ...]
    foreign: tuple[ForeignService, ...] = ()

    @property
    def schema(self) -> str:
        """Return the PostgreSQL schema that it owns."""
        return self.name

    @property
    def address(self) -> str:
        """Return its default gRPC address."""
        return f"{LOOPBACK}:{self.rpc_port}"

    @property
    def metrics_address(self) -> str:
        """Return its default HTTP address."""
        return f"{LOOPBACK}:{self.metrics_port}"


ENVOY_AUTHORIZATION: Final = ForeignService(
    descriptor=external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"],
    access=MappingProxyType(
        {
            "Check": access_pb2.Access(
                permission=access_pb2.PERMISSION_KEYS_CHECK, callers=[access_pb2.CALLER_SERVICE_ACCOUNT]
            )
        }
    ),
)
AUTH: Final = Service(
    name="auth",
    descriptor=auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"],
    rpc_port=50051,
    metrics_port=9101,
    roles=(API, WORKER),
    foreign=(ENVOY_AUTHORIZATION,),
)
RATELIMIT: Final = Service(
    name="ratelimit",
    descriptor=ratelimit_service_pb2.DESCRIPTOR.services_by_name["RateLimitService"],
    rpc_port=50052,
    metrics_port=9102,
    roles=(API, WORKER),
)
METERING: Final = Service(
    name="metering",
    descriptor=metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"],
    rpc_port=50053,
    metrics_port=9103,
    roles=(API, CONSUMER, WORKER),
)
BILLING: Final = Service(
    name="billing",
    descriptor=billing_service_pb2.DESCRIPTOR.services_by_name["BillingService"],
    rpc_port=50054,
    metrics_port=9104,
    roles=(API, WORKER),
)
NOTIFICATION: Final = Service(
    name="notification",
    descriptor=notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"],
    rpc_port=50055,
    metrics_port=9105,
    roles=(API, WORKER),
)

# In the order in which they start: nobody needs a later one to answer its first question.
SERVICES: Final[Mapping[str, Service]] = MappingProxyType(
    {service.name: service for service in (AUTH, RATELIMIT, METERING, BILLING, NOTIFICATION)}
)
