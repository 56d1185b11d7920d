"""An origin's address, read once and strictly: what can be wrong with it is found before any request needs it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PORT_MAX: Final = 65_535
HOST_CHARACTERS_MAX: Final = 253

# RFC 1123 section 2.1; underscores are common in the names of containers.
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginAddress:
    """Where an origin listens; `host_line` is the `Host` field of every request to it."""

    url: str
    host: str
    port: int
    is_tls: bool
    host_line: bytes


def parse_origin(url: str) -> OriginAddress:
    """Read `http://host[:port]` or `https://host[:port]`.

    Raises:
        ValueError: It is something else; the message says what, for whoever wrote it.
    """
    if not url.isascii() or not url.isprintable():
        raise ValueError(f"{url!r} has characters that no host name has; write an international name in its xn-- form")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host[:port] or https://host[:port]")
    if parts.path not in {"", "/"} or "?" in url or "#" in url or "@" in parts.netloc:
        raise ValueError(f"{url!r} must be an origin; a prefix belongs to the route's rewrite")
    _check_host(url, parts.netloc, parts.hostname)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{url!r} has no such port")
    return OriginAddress(
        url=f"{parts.scheme}://{parts.netloc}",
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        is_tls=parts.scheme == "https",
        host_line=f"Host: {parts.netloc}\r\n".encode("ascii"),
    )


def _check_host(url: str, netloc: str, host: str) -> None:
    if netloc.startswith("["):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{url!r} has no IPv6 address in its brackets") from None
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > HOST_CHARACTERS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{url!r} has a host name with an empty, too long or impossible label")
    if labels[-1].isdigit():
        # Resolvers read `1.2` as 1.0.0.2 and the like (inet_aton(3)).
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{url!r} has no IPv4 address where its host ends in a number") from None
