"""Other spellings of a path, through the edge to a real aiohttp server."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.support.edge_fakes import grant, key

ROUTES = """
version: 1
upstreams:
  demo: {urls: ["${TOLLWAY_UPSTREAM_URL}"]}
routes:
  - {id: admin, match: {path_prefix: /admin}, upstream: demo, scopes: ["admin"]}
  - {id: named, match: {hosts: [admin.test], path_prefix: /}, upstream: demo, scopes: ["admin"]}
  - {id: chat, match: {path: /v1/chat/completions}, upstream: demo, cost_units: 7}
  - {id: any, match: {path_prefix: /}, upstream: demo, path_parameters: keep}
"""

ADMIN = ["/admin", "/%61dmin", "/%61%64%6D%69%6e", "/admin/", "/%41dmin", "/Admin", "/ADMIN", "/admin;x", "/admin;x/y"]
ADMIN += [
    "/admin%3Bx",
    "/admin%3bx/",
    "/x/../admin",
    "/x/%2e%2e/admin",
    "//admin",
    "/./admin",
    "/%2Fadmin",
    "/;x/admin",
]
ADMIN += [
    "/;x/admin",
    "/admin%00",
    "/admin%2f",
    "/%2561dmin",
    "/admin%20",
    "/admin/%2e",
    "/adm%69n?x=/other",
    "/a\\..\\admin",
]
CHAT = ["/v1/chat/%63ompletions", "/v1/%63hat/completions", "/v1/chat/completions/", "/%76%31/chat/completions"]
CHAT += ["/V1/chat/completions", "/v1/chat/completions;x", "/v1//chat/completions", "/v1/chat/x/../completions"]


class AiohttpUpstream:
    """Answers with the name of the handler that aiohttp chose."""

    def __init__(self) -> None:
        self.url = ""
        self.paths: list[str] = []

    async def start(self) -> None:
        application = web.Application()
        for path, name in [
            ("/admin", "admin"),
            ("/admin/{tail:.*}", "admin"),
            ("/v1/chat/completions", "chat"),
            ("/{tail:.*}", "any"),
        ]:
            application.router.add_route("*", path, self._handler(name))
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    def _handler(self, name: str):
        async def handle(request: web.Request) -> web.Response:
            self.paths.append(request.raw_path)
            return web.Response(text=name)

        return handle


@pytest.fixture
async def spelled(surroundings):
    replaced = surroundings.upstream
    surroundings.upstream, surroundings.routes = AiohttpUpstream(), ROUTES
    await surroundings.upstream.start()
    await surroundings.start()
    await surroundings.healthy()
    yield surroundings
    await surroundings.stop()
    await surroundings.upstream.stop()
    surroundings.upstream = replaced


@pytest.mark.parametrize("path", ADMIN)
async def test_no_spelling_of_a_scoped_path_reaches_its_handler_without_the_scope(spelled, path):
    got = await spelled.request(path)
    assert got.body != b"admin"
    assert got.status in {400, 403, 404} or got.body == b"any"


@pytest.mark.parametrize("path", ["/admin", "/%61dmin", "/admin/", "/adm%69n/users"])
async def test_spellings_of_a_scoped_path_are_one_with_the_scope(spelled, path):
    spelled.backend.auth.add(grant(holder := key(7), scopes=["admin"]))
    await spelled.until(lambda: len(spelled.worker._cache) == 2)
    got = await spelled.request(path, key=holder)
    assert (got.status, got.body) == (200, b"admin")
    assert spelled.upstream.paths[-1].startswith("/admin")


@pytest.mark.parametrize("path", CHAT)
async def test_no_spelling_of_a_priced_path_is_cheaper(spelled, path):
    got = await spelled.request(path, method="POST")
    if got.body == b"chat":
        (event,) = await spelled.events(1)
        assert (event.route_id, event.cost_units) == ("chat", 7)
    else:
        assert got.status in {400, 404} or got.body == b"any"


@pytest.mark.parametrize("host", ["admin.test", "Admin.Test", "admin.test.", "admin.test:80", "ADMIN.test.:80"])
async def test_no_spelling_of_a_host_leaves_its_route(spelled, host):
    raw = f"GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-API-Key: {spelled.key}\r\n\r\n"
    assert (await spelled.raw(raw.encode())).startswith(b"HTTP/1.1 403 ")


async def test_exactly_the_form_that_was_matched_is_forwarded(spelled):
    await spelled.request("/%66iles/a%c3%bc;v=1%3b2/%7eme%20x?q=%61")
    assert spelled.upstream.paths == ["/files/a%C3%BC;v=1%3B2/~me%20x?q=%61"]
