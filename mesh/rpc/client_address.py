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
VOUCHED_BY: Final = "x-tollway-vouched-by"
VOUCHERS: Final = frozenset({"graphql_gateway"})
_BEARER: Final = "Bearer "


def vouched_address(tokens: ProcessTokens, address: str, service: str) -> tuple[tuple[str, str], ...]:
    """Return metadata that tells a service whom a call is made for."""
    return (CLIENT_ADDRESS, address), (VOUCHED_BY, tokens.bearer(service))


def client_address(metadata: Mapping[str, Any], peer: str, keys: ProcessKeys, service: str) -> str:
    """Return whom a call comes from: the address that a process of ours vouches for, else the peer's.

    Args:
        metadata: Of the call.
        peer: gRPC's name of the other end, for example `ipv4:192.0.2.1:50000`.
        keys: The public keys of all processes.
        service: The service that was called.
    """
    address, token = str(metadata.get(CLIENT_ADDRESS, "")), str(metadata.get(VOUCHED_BY, ""))
    if address and token:
        try:
            claims = read_process_token(token.removeprefix(_BEARER), keys, service)
        except (jwt.InvalidTokenError, KeyError):
            return peer.rpartition(":")[0]
        if claims["sub"] in VOUCHERS:
            return address
    return peer.rpartition(":")[0]
