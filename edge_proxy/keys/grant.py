"""What a key may do, in the form that a request's path needs it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.route_bytes import RouteBytes

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, kw_only=True, eq=False)
class Grant:
    """One key, as `auth` last described it.

    `message` is what `auth` sent, for the files. `fresh_until` is monotonic: after it the grant is asked for again in
    the background. `look_after` is the first instant at which anything has to be done about a grant that is used: it is
    asked for again, or its use is noted. `wire` holds the constant parts of decisions and events per route, so that
    they are serialised once per key and not once per request.
    """

    message: auth.KeyGrant
    digest: bytes
    api_key_id: bytes
    organization_id: bytes
    test_mode: bool
    state: int
    scopes: frozenset[str]
    networks: tuple[Network, ...]
    external_subject: str
    expire_time_us: int
    plan_id: str
    restricted: bool
    fresh_until: float
    look_after: float = 0.0
    wire: dict[tuple[str, str], RouteBytes] = field(default_factory=dict)

    def allows_address(self, address: str) -> bool:
        """Tell whether the key may be used from an address."""
        if not self.networks:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.networks)


def from_message(message: auth.KeyGrant, *, fresh_until: float) -> Grant:
    """Read a grant. A network that cannot be read allows nobody, because it was meant to restrict."""
    return Grant(
        message=message,
        digest=message.digest,
        api_key_id=message.api_key_id,
        organization_id=message.organization_id,
        test_mode=message.mode == auth.KEY_MODE_TEST,
        state=message.state,
        scopes=frozenset(message.scopes),
        networks=tuple(_network(text) for text in message.allowed_ips),
        external_subject=message.external_subject,
        expire_time_us=message.expire_time_us,
        plan_id=message.plan_id,
        restricted=message.restricted,
        fresh_until=fresh_until,
    )


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ipaddress.ip_network("0.0.0.0/32")
