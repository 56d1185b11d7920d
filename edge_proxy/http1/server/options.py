"""What whoever runs the server may choose about its client connections."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    head_timeout_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    body_bytes_per_second_min: int = 500
    write_timeout_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    drain_idle_seconds: float = 1.0
    linger_seconds: float = 2.0
