"""The address of whoever stands behind a process of ours, told so that it can be believed.

The gateway calls `auth` for strangers who have no credentials yet, and `auth` slows guessing down by address. The
stranger's address travels as metadata together with the gateway's own process token, which vouches for it and for
nothing else: the call stays anonymous. An address that nobody vouches for is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt

from mesh.rpc.tokens import ProcessTokens, read_process_token

CLIENT_ADDRESS: Final = "x-tollway-client-address"
VOUCHED_BY: Final = "x-tollway-vouched-by"
_BEARER: Final = "Bearer "


def vouched_address(tokens: ProcessTokens, address: str) -> tuple[tuple[str, str], ...]:
    """Return metadata that tells whom a call is made for."""
    return (CLIENT_ADDRESS, address), (VOUCHED_BY, tokens.bearer())


def client_address(metadata: Mapping[str, Any], peer: str, process_secret: str) -> str:
    """Return whom a call comes from: the address that a process of ours vouches for, else the peer's.

    Args:
        metadata: Of the call.
        peer: gRPC's name of the other end, for example `ipv4:192.0.2.1:50000`.
        process_secret: The installation's process secret.
    """
    address, token = str(metadata.get(CLIENT_ADDRESS, "")), str(metadata.get(VOUCHED_BY, ""))
    if address and token:
        try:
            read_process_token(token.removeprefix(_BEARER), process_secret)
        except jwt.InvalidTokenError:
            return peer.rpartition(":")[0]
        return address
    return peer.rpartition(":")[0]
