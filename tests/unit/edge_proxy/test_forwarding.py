from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.http1.server import proxy_protocol
from edge_proxy.http1.server.forwarding import HOPS_MAX, Trust, group_of
from edge_proxy.http1.server.proxy_protocol import V1_BYTES_MAX, V2_BYTES_MAX, V2_SIGNATURE, NotProxyProtocol

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
BY_LIST, BY_RFC = Trust(NETWORKS), Trust(NETWORKS, "forwarded")


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], "10.0.0.1"),
        ([b"192.0.2.7"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        ([b"6.6.6.6", b"192.0.2.7", b"10.1.1.1"], "192.0.2.7"),
        ([b"10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ([b"192.0.2.7:1234"], "192.0.2.7"),
        ([b"[2001:db8::7]:1234"], "2001:db8::7"),
        ([b"2001:db8::7"], "2001:db8::7"),
        ([b"::ffff:192.0.2.7"], "192.0.2.7"),
        ([b"6.6.6.6, unknown"], "10.0.0.1"),
        ([b"6.6.6.6, nonsense, 10.1.1.1"], "10.1.1.1"),
        ([b"6.6.6.6,"], "10.0.0.1"),
        ([b"fe80::1%eth0"], "10.0.0.1"),
        ([b'fe80::1%";host="evil'], "10.0.0.1"),
        ([b"[fe80::1%\xe9]:80"], "10.0.0.1"),
    ],
)
def test_client_is_the_first_address_from_the_end_that_is_not_trusted(values, client):
    assert BY_LIST.client_of("10.0.0.1", values) == client


@pytest.mark.parametrize(
    ("value", "client", "scheme"),
    [
        (b"for=192.0.2.7;proto=https", "192.0.2.7", "https"),
        (b'for=6.6.6.6, For="[2001:db8::7]:80"; Proto=HTTPS;host=a', "2001:db8::7", "https"),
        (b'for=6.6.6.6, for="_hidden"', "10.0.0.1", "http"),
        (b"proto=https;by=10.0.0.1", "10.0.0.1", "https"),
        (b'for="192.0.2.7;proto=https"', "10.0.0.1", "http"),
        (b'for=192.0.2.7;host="a,for=6.6.6.6"', "192.0.2.7", "http"),
        (b'for="6.6.6.6, for=192.0.2.7', "10.0.0.1", "http"),
    ],
)
def test_forwarded_of_rfc_7239_is_read_where_the_proxies_write_it(value, client, scheme):
    assert BY_RFC.client_of("10.0.0.1", [value]) == client
    assert BY_RFC.scheme_of([value]) == scheme


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=5), st.lists(st.integers(0, 2**24 - 1), max_size=5))
def test_what_strangers_wrote_never_counts(strangers, proxies):
    trusted = [str(ip_address((10 << 24) + number)) for number in proxies]
    chain = ", ".join([*strangers, "192.0.2.7", *trusted]).encode()
    assert BY_LIST.client_of("10.0.0.1", [chain]) == "192.0.2.7"


def test_the_chain_is_read_up_to_a_bound():
    chain = b"192.0.2.7" + b", 10.1.1.1" * HOPS_MAX
    assert BY_LIST.client_of("10.0.0.1", [chain]) == "10.1.1.1"


def test_one_network_of_ipv6_is_one_client():
    assert group_of("2001:db8:0:7::1") == group_of("2001:db8:0:7:ffff::2") != group_of("2001:db8:0:8::1")
    assert group_of("192.0.2.7") == "192.0.2.7"


V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"


def v2(family: int, addresses: bytes, *, command: int = 0x21, extra: bytes = b"") -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(addresses + extra)) + addresses + extra


V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 443)
V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + struct.pack("!HH", 56324, 443)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (v2(0x11, V4), "192.0.2.7"),
        (v2(0x21, V6), "2001:db8::7"),
        (v2(0x11, V4, extra=b"\x04\x00\x03abc"), "192.0.2.7"),
        (v2(0x00, b"", command=0x20), None),
        (v2(0x31, b"x" * 216), None),
    ],
)
def test_proxy_header_is_read_whole_however_it_is_cut(header, address):
    for end in range(len(header)):
        assert proxy_protocol.read(header[:end]) is None
    assert proxy_protocol.read(header + b"GET /") == (len(header), address)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%\xe9 ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%\rX:y ::1 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * V1_BYTES_MAX,
        v2(0x11, V4, command=0x11),
        v2(0x11, V4, command=0x22),
        v2(0x11, V4[:8]),
        v2(0x21, V4),
        v2(0x11, V4, extra=b"x" * V2_BYTES_MAX),
        V2_SIGNATURE[:-1] + b"x",
    ],
)
def test_what_is_no_proxy_header_is_refused(header):
    with pytest.raises(NotProxyProtocol):
        proxy_protocol.read(header)
