"""The network address that a request comes from, and what an address is counted by.

Each proxy appends the peer that it saw to `X-Forwarded-For`, so the list is read from its end, for as long as the
address before was one of our own proxies; whatever a client wrote itself is further left and is not reached. Some
proxies append a port; it is dropped, because a new connection must not be a new client. A hop that is no address ends
the reading: the last proxy that is known then stands for the client.

IPv6 clients are counted by /64, the smallest network that one customer line has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV6_PREFIX_BITS: Final = 64
HOPS_MAX: Final = 32
"""Nobody has that many proxies of their own in a row."""


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request comes from.

    Args:
        peer: The other end of the connection.
        forwarded_for: Every `X-Forwarded-For` field, in order.
        trusted: The networks of our own proxies.
    """
    hops = [hop for line in forwarded_for for hop in line.split(",")][-HOPS_MAX:] if trusted else []
    address = peer
    while hops and is_trusted(address, trusted):
        hop = parse_address(hops.pop())
        if hop is None:
            return address
        address = str(hop)
    return address


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Say whether an address is one of our own proxies."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in trusted)


def network_of(address: str) -> str:
    """Return what an address is counted by: itself, or for IPv6 its /64."""
    parsed = parse_address(address)
    if parsed is None:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX_BITS), strict=False))


def parse_address(text: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`; None for others.

    An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
    """
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed if mapped is None else mapped
