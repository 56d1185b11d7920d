"""Usage events for tests, and a verifier that knows processes only."""

from __future__ import annotations

import time
import uuid

from tollway.events.v1 import usage_event_pb2 as events

from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Verifier
from tests.support.processes import PROCESS_KEYS

IDS = RandomIds()
ORGANIZATION = uuid.UUID("01900000-0000-7000-8000-00000000000a")
OTHER_ORGANIZATION = uuid.UUID("01900000-0000-7000-8000-00000000000b")
API_KEY = uuid.UUID("01900000-0000-7000-8000-0000000000aa")


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
    """Returns a verifier that accepts processes and knows no people."""

    async def no_keys() -> str:
        return '{"keys": []}'

    async def nobody(_token: str) -> None:
        return None

    return Verifier(
        process_keys=PROCESS_KEYS,
        audience=service,
        fetch_jwks=no_keys,
        resolve_service_account=nobody,
        clock=SystemClock(),
    )
