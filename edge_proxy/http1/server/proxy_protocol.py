"""The PROXY protocol, versions 1 and 2: a load balancer tells whose connection it is before the first byte of HTTP.

Source: "The PROXY protocol, versions 1 & 2" (HAProxy, 2020-03-05), sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from edge_proxy.http1.server.forwarding import parse_address

V1_BYTES_MAX: Final = 107
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
# Addresses take at most 216 bytes; what a balancer adds behind them is skipped, but not without a bound.
V2_BYTES_MAX: Final = 4_096

_V1_START: Final = b"PROXY "
_V2_HEAD_BYTES: Final = 16
_V1_FAMILIES: Final = {"TCP4": IPv4Address, "TCP6": IPv6Address}


class NotProxyProtocol(ValueError):
    """The connection does not begin with a header of the PROXY protocol."""


def read(data: bytes) -> tuple[int, str | None] | None:
    """Return the header's size and the client's address, or None where more bytes are needed.

    The address is None where the balancer speaks for itself (health checks: `UNKNOWN`, `LOCAL`).

    Raises:
        NotProxyProtocol: It is no header, or a malformed one.
    """
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _read_v1(data)
    if data[: len(V2_SIGNATURE)] == V2_SIGNATURE[: len(data)]:
        return _read_v2(data)
    raise NotProxyProtocol


def _read_v1(data: bytes) -> tuple[int, str | None] | None:
    end = data.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise NotProxyProtocol
        return None
    parts = data[:end].decode("latin-1").split(" ")
    if parts[1] == "UNKNOWN":
        return end + 2, None
    family = _V1_FAMILIES.get(parts[1])
    if family is None or len(parts) != 6 or not all(port.isdecimal() and len(port) <= 5 for port in parts[4:]):
        raise NotProxyProtocol
    source = parse_address(parts[2])
    try:
        family(parts[2])
        family(parts[3])
    except ValueError:
        source = None
    if source is None:
        raise NotProxyProtocol
    return end + 2, str(source)


def _read_v2(data: bytes) -> tuple[int, str | None] | None:
    if len(data) < _V2_HEAD_BYTES:
        return None
    version_and_command, family, length = struct.unpack_from("!BBH", data, len(V2_SIGNATURE))
    size = _V2_HEAD_BYTES + length
    if version_and_command >> 4 != 2 or version_and_command & 15 > 1 or size > V2_BYTES_MAX:
        raise NotProxyProtocol
    if len(data) < size:
        return None
    if version_and_command & 15 == 0 or family >> 4 not in {1, 2}:
        return size, None
    is_v4 = family >> 4 == 1
    if length < (12 if is_v4 else 36):
        raise NotProxyProtocol
    raw = data[_V2_HEAD_BYTES : _V2_HEAD_BYTES + (4 if is_v4 else 16)]
    return size, str(parse_address(str(IPv4Address(raw) if is_v4 else IPv6Address(raw))))
