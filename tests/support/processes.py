"""The keys of Tollway's processes in tests: made from their names, so that every test knows them."""

from __future__ import annotations

import hashlib
from typing import Any

from contract.services import SERVICES
from mesh.clock import SystemClock
from mesh.rpc.process_tokens import ProcessKeys, ProcessTokens, public_key_of

NAMES = (*SERVICES, "edge_proxy", "graphql_gateway", "cli")


def seed_of(name: str) -> bytes:
    """The private key of a process."""
    return hashlib.sha256(f"process {name}".encode()).digest()


PUBLIC_KEYS = ",".join(f"{name}:{public_key_of(seed_of(name)).hex()}" for name in NAMES)
PROCESS_KEYS = ProcessKeys((name, public_key_of(seed_of(name))) for name in NAMES)


def process_fields(name: str) -> dict[str, Any]:
    """What the settings of a process say about keys."""
    return {"process_key": seed_of(name).hex(), "process_public_keys": PUBLIC_KEYS}


def process_variables(name: str) -> dict[str, str]:
    """The same as environment variables."""
    return {f"TOLLWAY_{field.upper()}": value for field, value in process_fields(name).items()}


def process_tokens(name: str) -> ProcessTokens:
    """What a process makes its tokens with."""
    return ProcessTokens(seed=seed_of(name), process=name, clock=SystemClock())


def process_metadata(name: str, service: str) -> list[tuple[str, str]]:
    """The credentials that a process sends to a service."""
    return [("authorization", process_tokens(name).bearer(service))]
