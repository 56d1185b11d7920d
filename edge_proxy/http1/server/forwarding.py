"""Who the client is, where trusted proxies stand between it and this server.

The peer of a connection is known; what a field says is a claim. It is believed as far as it was written by proxies that
are trusted: the chain of addresses is read from its end, each trusted address vouches for the one before it, and the
first that is not trusted is the client. What stands before that was written by strangers and is never looked at.

Only one field is read, the one that the proxies are known to write. A proxy that writes `X-Forwarded-For` passes a
client's own `Forwarded` on unchanged, so believing either would believe the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

Network = IPv4Network | IPv6Network
ForwardedField = Literal["x-forwarded-for", "forwarded"]
# More proxies than anybody has; each costs the parsing of an address.
HOPS_MAX: Final = 16

# RFC 7239 section 4: pairs joined by `;`, elements by `,`, either of which may stand inside quotes.
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PAIR: Final = re.compile(rf"[ \t]*({_WORD})=({_VALUE}|{_QUOTED})[ \t]*([;,]|$)")
_PORT: Final = re.compile(r":[0-9]{1,5}$")


@dataclass(frozen=True, slots=True)
class Trust:
    """The proxies that are believed.

    Args:
        networks: Where they are.
        field: What they write.
    """

    networks: tuple[Network, ...] = ()
    field: ForwardedField = "x-forwarded-for"

    def covers(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        if not self.networks:
            return False
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def client_of(self, peer: str, values: list[bytes]) -> str:
        """Return the client's address.

        Args:
            peer: The connection's, already known to be trusted.
            values: The field's values, in their order.
        """
        client = peer
        for element in self._nodes(values):
            address = parse_address(element)
            if address is None:
                break
            client = str(address)
            if not self.covers(client):
                break
        return client

    def scheme_of(self, values: list[bytes]) -> str:
        """Return `http` or `https`: what the nearest proxy says that its client spoke."""
        if self.field == "forwarded":
            elements = _elements(values)
            last = elements[-1].get("proto", "") if elements else ""
        else:
            last = b",".join(values).decode("latin-1").rpartition(",")[2].strip()
        return "https" if last.lower() == "https" else "http"

    def _nodes(self, values: list[bytes]) -> Iterator[str]:
        """Yield what the proxies wrote down, the last first."""
        if self.field == "forwarded":
            for element in reversed(_elements(values)[-HOPS_MAX:]):
                yield element.get("for", "")
            return
        rest, hops = b",".join(values).decode("latin-1"), 0
        while rest and hops < HOPS_MAX:
            rest, _, node = rest.rpartition(",")
            hops += 1
            yield node.strip()


def _elements(values: list[bytes]) -> list[dict[str, str]]:
    """Return the elements of `Forwarded`; none where its grammar is broken, because quotes decide where one begins."""
    text = b",".join(values).decode("latin-1")
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            return []
        elements[-1][found[1].lower()] = found[2].strip('"')
        position = found.end()
        if found[3] == ",":
            elements.append({})
    return elements


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address that may stand in brackets and have a port; an IPv4 address in IPv6 clothes is IPv4.

    A zone (`fe80::1%eth0`) names an interface of whoever wrote it, in any characters, so an address with one is none.
    """
    if "%" in text:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def group_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that an IPv6 address is in."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed) >> 64 << 64, 64)))
    return address
