"""The address of whoever stands behind a process of ours, told so that it can be believed.

The gateway calls `auth` for strangers who have no credentials yet, and `auth` slows guessing down by address. The
stranger's address travels as metadata together with the gateway's own process token, which vouches for it and for
nothing else: the call stays anonymous, or its caller's. An address that nobody vouches for is ignored, and so is one
that a process of ours names which has no business with strangers (`VOUCHERS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt

from mesh.rpc.process_tokens import ProcessKeys, ProcessTokens, read_process_token

CLIENT_ADDRESS: Final = "x-tollway-client-address"
CLIENT_USER_AGENT: Final = "x-tollway-client-user-agent"
VOUCHED_BY: Final = "x-tollway-vouched-by"
VOUCHERS: Final = frozenset({"graphql_gateway"})
_BEARER: Final = "Bearer "


def vouched_address(
    tokens: ProcessTokens, address: str, service: str, *, user_agent: str = ""
) -> tuple[tuple[str, str], ...]:
    """Return metadata that tells a service whom a call is made for.

    Args:
        tokens: This process's own.
        address: The client's.
        service: The service that is called.
        user_agent: What the client calls itself, in printable ASCII; may be empty.
    """
    vouched = (CLIENT_ADDRESS, address), (VOUCHED_BY, tokens.bearer(service))
    return (*vouched, (CLIENT_USER_AGENT, user_agent)) if user_agent else vouched


def client_address(metadata: Mapping[str, Any], peer: str, keys: ProcessKeys, service: str) -> str:
    """Return whom a call comes from: the address that a process of ours vouches for, else the peer's.

    Args:
        metadata: Of the call.
        peer: gRPC's name of the other end, for example `ipv4:192.0.2.1:50000`.
        keys: The public keys of all processes.
        service: The service that was called.
    """
    address = str(metadata.get(CLIENT_ADDRESS, ""))
    return address if address and _is_vouched_for(metadata, keys, service) else peer.rpartition(":")[0]


def client_user_agent(metadata: Mapping[str, Any], keys: ProcessKeys, service: str) -> str:
    """Return what the client calls itself, as a process of ours tells it; empty where none does."""
    user_agent = str(metadata.get(CLIENT_USER_AGENT, ""))
    return user_agent if user_agent and _is_vouched_for(metadata, keys, service) else ""


def _is_vouched_for(metadata: Mapping[str, Any], keys: ProcessKeys, service: str) -> bool:
    """Tell whether a process that has business with strangers says whom it calls for."""
    token = str(metadata.get(VOUCHED_BY, ""))
    try:
        claims = read_process_token(token.removeprefix(_BEARER), keys, service)
    except (jwt.InvalidTokenError, KeyError):
        return False
    return claims["sub"] in VOUCHERS
