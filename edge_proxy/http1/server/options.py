"""What whoever runs the server may choose about its client connections."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_proxy.http1.server.fields import FieldRules
from edge_proxy.http1.server.forwarding import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Patience with clients, and how many of them there may be.

    Args:
        head_timeout_seconds: From the first byte of a head to its last.
        body_idle_seconds: How long a body may stand still while somebody waits for it.
        body_bytes_per_second_min: What a body must come in at on average, above `body_idle_seconds` of waiting for it.
        write_timeout_seconds: How long an answer may wait for a client that does not read.
        keep_alive_seconds: How long a connection may be idle between requests.
        drain_idle_seconds: The same while the server drains.
        linger_seconds: How long unread bytes are taken and dropped, so that no reset overtakes the last answer.
        connections_max: More are closed as they come.
        connections_per_client_max: The same for one address (one /64 of IPv6); trusted proxies may have more.
        trust: The proxies whose word on the client's address is taken.
        proxy_protocol: Whether every connection begins with a header of the PROXY protocol.
        fields: Which fields of requests go on.
    """

    head_timeout_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    body_bytes_per_second_min: int = 500
    write_timeout_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    drain_idle_seconds: float = 1.0
    linger_seconds: float = 2.0
    connections_max: int = 10_000
    connections_per_client_max: int = 1_000
    trust: Trust = field(default_factory=Trust)
    proxy_protocol: bool = False
    fields: FieldRules = field(default_factory=FieldRules)
