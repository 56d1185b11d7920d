"""What a client says about itself, its address and its request, and who believes it."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_network

import pytest
from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.http1.server.forwarding import Trust
from edge_proxy.http1.server.options import ServerOptions
from edge_proxy.pipeline import client_fields
from edge_proxy.process.worker import server_options as from_settings
from tests.integration.edge_proxy.conftest import parse_answer
from tests.support.edge_fakes import grant, key

TRACED = """
version: 1
upstreams:
  demo: {urls: ["${TOLLWAY_UPSTREAM_URL}"]}
routes:
  - {id: traced, match: {path: /traced, methods: [GET, TRACE]}, upstream: demo}
  - {id: any, match: {path_prefix: /}, upstream: demo}
"""
NAMES = sorted(
    [name.decode() for name in client_fields.RULES.dropped]
    + [f"{prefix.decode().rstrip('-')}-any" for prefix in client_fields.RULES.dropped_prefixes]
)


def test_names_that_identity_proxies_and_balancers_write_are_known():
    rules = client_fields.RULES
    for name in (
        *(b"remote-groups", b"remote-email", b"x-webauth-user", b"x-authentik-username", b"x-consumer-id"),
        *(b"cf-access-authenticated-user-email", b"x-goog-iap-jwt-assertion", b"x-auth-request-email"),
        *(b"wl-proxy-client-ip", b"proxy-client-ip", b"x-real-ip", b"x-scheme", b"front-end-https"),
        *(b"x-middleware-subrequest", b"x-original-url", b"x-http-method-override", b"proxy"),
    ):
        assert name in rules.dropped or name.startswith(rules.dropped_prefixes), name


@pytest.mark.parametrize("path", ["/x", "/open/x"])
async def test_no_claim_of_a_client_reaches_the_upstream(edge, path):
    await edge.request(path, headers="".join(f"{name.title()}: forged\r\n" for name in NAMES))
    (head,) = edge.upstream.heads
    assert b"forged" not in head
    assert len(NAMES) > 40


async def test_a_key_of_ours_reaches_no_upstream_also_where_none_is_needed(edge):
    shown = f"X-API-Key: {edge.key}\r\nX-API-Key: {edge.key.upper()}\r\nAuthorization: Basic {edge.key}x\r\n"
    assert (await edge.request("/open/x", headers=shown)).status == 200
    (head,) = edge.upstream.heads
    assert edge.key[8:] not in head.decode().lower()
    for user in (f"{edge.key}:", f"{edge.key}:x", f"user:{edge.key}"):
        basic = f"Authorization: basic {b64encode(user.encode()).decode().rstrip('=')}\r\n"
        await edge.request("/open/x", key="", headers=basic)
        assert b"authorization" not in edge.upstream.heads.pop().lower()
    for theirs in ("Authorization: Basic dXNlcjpwYXNz\r\n", "Authorization: Basic %\r\n"):
        await edge.request("/open/x", key="", headers=theirs)
        assert theirs.encode() in edge.upstream.heads.pop()
    await edge.request("/open/x", key="", headers="X-API-Key: theirs\r\nAuthorization: Bearer sk_live_51Stripe\r\n")
    assert b"X-Api-Key: theirs\r\n" in edge.upstream.heads[1]
    assert b"Authorization: Bearer sk_live_51Stripe\r\n" in edge.upstream.heads[1]


async def test_options_about_the_server_is_answered_here(edge):
    for raw in (b"OPTIONS * HTTP/1.1\r\n", b"OPTIONS /x HTTP/1.1\r\nMax-Forwards: 0\r\n"):
        got = parse_answer(await edge.raw(raw + b"Host: a\r\nConnection: close\r\n\r\n"))
        assert got.status == 204
        assert got.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
        assert "content-length" not in got.headers
    assert edge.upstream.heads == []


async def test_options_with_hops_left_goes_on_with_one_less(edge):
    assert (await edge.request("/x", method="OPTIONS", headers="Max-Forwards: 3\r\n")).status == 200
    assert b"Max-Forwards: 2\r\n" in edge.upstream.heads[0]


async def test_trace_is_off_and_where_a_route_takes_it_shows_no_secrets(surroundings):
    edge = surroundings
    edge.routes = TRACED
    await edge.start()
    await edge.healthy()
    try:
        assert (await edge.request("/x", method="TRACE")).status == 405
        assert (await edge.request("/traced", method="TRACE", key="")).status == 401
        got = await edge.request(
            "/traced?q", method="TRACE", headers="Max-Forwards: 0\r\nCookie: secret\r\nX-Shown: 1\r\n"
        )
        assert (got.status, got.headers["content-type"]) == (200, "message/http")
        assert got.body == b"TRACE /traced?q HTTP/1.1\r\nHost: edge.test\r\nX-Shown: 1\r\n\r\n"
        assert edge.upstream.heads == []
        (event,) = await edge.events(1)
        assert (event.status, event.outcome) == (200, events.OUTCOME_REFUSED)
    finally:
        await edge.stop()


class TestBehindTrustedProxies:
    @pytest.fixture
    def server_options(self):
        return ServerOptions(trust=Trust((ip_network("127.0.0.0/8"),)))

    async def test_address_rules_see_the_client(self, edge):
        edge.backend.auth.add(grant(holder := key(7), allowed_ips=["192.0.2.0/24"]))
        await edge.until(lambda: len(edge.worker._cache) == 2)
        for chain, status in (("192.0.2.7", 200), ("192.0.2.7, 6.6.6.6", 403), ("6.6.6.6, 192.0.2.7", 200)):
            got = await edge.request("/x", key=holder, headers=f"X-Forwarded-For: {chain}\r\n")
            assert got.status == status, chain
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in edge.upstream.heads[-1]


async def test_address_rules_believe_nobody_where_no_proxy_is_trusted(edge):
    edge.backend.auth.add(grant(holder := key(7), allowed_ips=["192.0.2.0/24"]))
    await edge.until(lambda: len(edge.worker._cache) == 2)
    claims = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n"
    assert (await edge.request("/x", key=holder, headers=claims)).status == 403


async def test_the_environment_says_who_is_trusted(edge):
    options = from_settings(
        edge.worker._settings.model_copy(
            update={"edge_trusted_proxies": "10.0.0.0/8, 192.0.2.7", "edge_forwarded_field": "forwarded"}
        )
    )
    assert options.trust.covers("10.1.1.1")
    assert not options.trust.covers("192.0.2.8")
    assert (options.trust.field, options.fields) == ("forwarded", client_fields.RULES)
