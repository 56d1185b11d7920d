"""Usage events for tests, and a verifier that knows processes and the operator."""

from __future__ import annotations

import time
import uuid

from tollway.events.v1 import usage_event_pb2 as events
from tollway.options.v1 import access_pb2

from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Principal, PrincipalKind, Verifier
from tests.support.machine_tokens import machine_token
from tests.support.processes import PROCESS_KEYS

IDS = RandomIds()
ORGANIZATION = uuid.UUID("01900000-0000-7000-8000-00000000000a")
OTHER_ORGANIZATION = uuid.UUID("01900000-0000-7000-8000-00000000000b")
API_KEY = uuid.UUID("01900000-0000-7000-8000-0000000000aa")
OPERATOR = uuid.UUID("01900000-0000-7000-8000-0000000000cc")
ADMIN_TOKEN, SUPPORT_TOKEN, OWNER_TOKEN = map(machine_token, ("admin", "support", "owner"))


def _account(organization_id: uuid.UUID, *platform_roles: access_pb2.PlatformRole.ValueType) -> Principal:
    return Principal(
        kind=PrincipalKind.SERVICE_ACCOUNT,
        subject=f"account of {organization_id}",
        organization_id=organization_id,
        role=access_pb2.ROLE_OWNER,
        platform_roles=platform_roles,
    )


ACCOUNTS = {
    ADMIN_TOKEN: _account(OPERATOR, access_pb2.PLATFORM_ROLE_ADMIN),
    SUPPORT_TOKEN: _account(OPERATOR, access_pb2.PLATFORM_ROLE_SUPPORT),
    OWNER_TOKEN: _account(ORGANIZATION),
}


def usage_event(**changes: object) -> events.UsageEvent:
    """Returns a billable event that happened now."""
    values: dict[str, object] = {
        "id": IDS.uuid7_bytes(),
        "organization_id": ORGANIZATION.bytes,
        "api_key_id": API_KEY.bytes,
        "start_time_us": time.time_ns() // 1000,
        "duration_us": 1_500,
        "upstream_latency_us": 1_000,
        "route_id": "orders",
        "method": "GET",
        "path_template": "/orders/{id}",
        "status": 200,
        "outcome": events.OUTCOME_ANSWERED,
        "request_bytes": 10,
        "response_bytes": 200,
        "cost_units": 1,
    }
    return events.UsageEvent(**{**values, **changes})  # type: ignore[arg-type]


def payload(**changes: object) -> bytes:
    """Returns a serialised event."""
    return usage_event(**changes).SerializeToString()


def verifier(service: str) -> Verifier:
    """Returns a verifier that accepts processes and the service accounts of `ACCOUNTS`, and knows no people."""

    async def no_keys() -> str:
        return '{"keys": []}'

    async def resolve(token: str) -> Principal | None:
        return ACCOUNTS.get(token)

    return Verifier(
        process_keys=PROCESS_KEYS,
        audience=service,
        fetch_jwks=no_keys,
        resolve_service_account=resolve,
        clock=SystemClock(),
    )
