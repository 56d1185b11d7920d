from __future__ import annotations

import pytest

from tests.support.edge_fakes import answer

PAGE = "https://app.test"


@pytest.fixture
async def edge(surroundings):
    surroundings.routes = surroundings.routes.replace(
        "{id: api, match: {path_prefix: /}, upstream: demo}",
        "{id: api, match: {path_prefix: /}, upstream: demo, "
        f"cors: {{origins: ['{PAGE}'], methods: [GET, PUT], credentials: true}}}}\n"
        "  - {id: any, match: {path: /any}, upstream: demo, auth: none, cors: {origins: ['*']}}",
    )
    await surroundings.start()
    await surroundings.healthy()
    yield surroundings
    await surroundings.stop()


def preflight(origin=PAGE, method="PUT"):
    return f"Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n"


async def test_a_preflight_of_a_keyed_route_needs_no_key_reaches_no_upstream_and_is_not_recorded(edge):
    got = await edge.request("/x", method="OPTIONS", headers=preflight(), key="")
    assert got.status == 204
    assert got.headers["access-control-allow-origin"] == PAGE
    assert got.headers["access-control-allow-methods"] == "GET, PUT"
    assert got.headers["access-control-allow-headers"] == "Authorization, Content-Type, X-API-Key"
    assert (got.headers["access-control-allow-credentials"], got.headers["vary"]) == ("true", "Origin")
    assert got.body == b""
    await edge.request("/x")
    assert len(await edge.events(1)) == 1
    assert len(edge.upstream.heads) == 1
    assert len(edge.backend.limiter.decisions) == 1


async def test_another_origin_is_not_allowed(edge):
    got = await edge.request("/x", method="OPTIONS", headers=preflight("https://evil.test"), key="")
    assert got.status == 204
    assert "access-control-allow-origin" not in got.headers
    assert got.headers["vary"] == "Origin"


@pytest.mark.parametrize("status", [200, 401, 413, 429, 502])
async def test_every_answer_of_the_route_can_be_read_by_the_page(edge, status):
    match status:
        case 429:
            edge.backend.limiter.used = edge.backend.limiter.burst
        case 502:
            await edge.upstream.stop()
    length = "Content-Length: 99999999999\r\n" if status == 413 else ""
    head = f"PUT /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: {PAGE}\r\n{length}"
    credential = "" if status == 401 else f"X-API-Key: {edge.key}\r\n"
    raw = await edge.raw(f"{head}{credential}\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 %d" % status)
    assert raw.count(f"Access-Control-Allow-Origin: {PAGE}\r\n".encode()) == 1
    assert b"Access-Control-Expose-Headers: X-Request-Id, RateLimit, RateLimit-Policy, Retry-After\r\n" in raw


async def test_the_upstreams_own_rules_do_not_contradict_the_routes(edge):
    edge.upstream.script = answer(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-max-age: 9\r\nContent-Length: 0\r\n\r\n"
    )
    got = await edge.request("/x", headers=f"Origin: {PAGE}\r\n")
    assert got.raw.lower().count(b"access-control-allow-origin") == 1
    assert "access-control-max-age" not in got.headers
    assert (await edge.request("/any")).headers["access-control-allow-origin"] == "*"


async def test_without_rules_the_upstreams_answers_and_preflights_are_its_own_business(edge):
    edge.upstream.script = answer(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n")
    got = await edge.request("/open", method="OPTIONS", headers=preflight(), key="")
    assert (got.status, got.headers["access-control-allow-origin"]) == (200, "*")
    assert (await edge.request("/small", method="OPTIONS", headers=preflight(), key="")).status == 401


async def test_an_options_request_that_is_no_preflight_goes_its_usual_way(edge):
    assert (await edge.request("/x", method="OPTIONS", headers=f"Origin: {PAGE}\r\n", key="")).status == 401
    assert (await edge.request("/x", method="OPTIONS")).status == 200
