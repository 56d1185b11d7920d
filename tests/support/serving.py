"""Servers of one test: any handler behind the real interceptors, on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.access import Principal, Verifier
from mesh.rpc.server import Server
from mesh.rpc.tokens import SessionSigner
from tests.support.processes import PROCESS_KEYS

SIGNER = SessionSigner(seed=b"s" * 32, clock=SystemClock(), ids=RandomIds())


def person_metadata(person_id: Any, organization_id: Any, role: str = "owner") -> list[tuple[str, str]]:
    """The credentials of a person."""
    token, _ = SIGNER.issue(person_id=person_id, organization_id=organization_id, role=role)
    return [("authorization", f"Bearer {token}")]


def test_verifier(service: str) -> Verifier:
    """Believes the test's signer, and the test's processes where they name this service."""

    async def jwks() -> str:
        return SIGNER.jwks_json()

    async def nobody(_token: str) -> Principal | None:
        return None

    return Verifier(
        process_keys=PROCESS_KEYS,
        audience=service,
        fetch_jwks=jwks,
        resolve_service_account=nobody,
        clock=SystemClock(),
    )


test_verifier.__test__ = False  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def serving(
    descriptor: ServiceDescriptor, register: Callable[[Any, Any], None], handler: Any, *, port: int = 0
) -> AsyncIterator[str]:
    """Serves a handler and yields its address."""
    server = await Server.start(
        name=descriptor.name,
        listen=f"127.0.0.1:{port}",
        services=[(descriptor, register, handler)],
        verifier=test_verifier(str(descriptor.full_name).split(".")[1]),
        clock=SystemClock(),
        ids=RandomIds(),
    )
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0.5)
