from __future__ import annotations

import pytest

from edge_proxy.config import DEFAULT_ROUTES_PATH
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.file import RoutesFileError
from edge_proxy.routing.routes import LimiterAway, MethodNotAllowed

HEAD = "version: 1\nupstreams: {u: {urls: [http://u]}}\nroutes:\n"


def table(*routes: str):
    return routes_file.parse(HEAD + "\n".join(f"  - {route}" for route in routes), {})


def violations(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(RoutesFileError) as caught:
        routes_file.parse(text, environment or {})
    return caught.value.violations


MIXED = (
    "{id: any, match: {path_prefix: /}, upstream: u}",
    "{id: users, match: {path_prefix: /v1/users}, upstream: u}",
    "{id: user, match: {path: '/v1/users/{user_id}', methods: [GET, DELETE]}, upstream: u}",
    "{id: me, match: {path: /v1/users/me}, upstream: u}",
    "{id: admin, match: {hosts: [admin.test], path_prefix: /}, upstream: u}",
    "{id: wild, match: {hosts: ['*.test'], path_prefix: /}, upstream: u}",
)


@pytest.mark.parametrize(
    ("host", "method", "path", "expected"),
    [
        ("x", "GET", "/", "any"),
        ("x", "GET", "/v1/usersandmore", "any"),
        ("x", "GET", "/v1/users", "users"),
        ("x", "GET", "/v1/users/", "users"),
        ("x", "GET", "/v1/users/7", "user"),
        ("x", "POST", "/v1/users/7", "users"),
        ("x", "POST", "/v1/users/me", "me"),
        ("x", "GET", "/v1/users/7/keys", "users"),
        ("admin.test", "GET", "/a", "admin"),
        ("admin.test:8080", "GET", "/a", "admin"),
        ("other.test", "GET", "/a", "wild"),
        ("test", "GET", "/a", "any"),
    ],
)
def test_most_specific_route_wins(host, method, path, expected):
    assert table(*MIXED).match(host, method, path).id == expected


def test_unknown_path_is_none_and_unknown_method_lists_those_that_would():
    routes = table(
        "{id: a, match: {path: /a, methods: [GET]}, upstream: u}",
        "{id: b, match: {path: /a, methods: [PUT]}, upstream: u}",
    )
    assert routes.match("x", "GET", "/b") is None
    assert routes.match("x", "POST", "/a") == MethodNotAllowed(allow=("GET", "PUT"))


def test_path_template_and_rewrite():
    routes = table(
        "{id: a, match: {path_prefix: /v9/x}, upstream: u, rewrite: {strip_prefix: /v9, add_prefix: /base}}",
        "{id: b, match: {path_prefix: /old}, upstream: u, rewrite: {strip_prefix: /old}}",
    )
    found = routes.match("x", "GET", "/v9/x/1")
    assert (found.path_template, found.upstream_path("/v9/x/1")) == ("/v9/x/*", "/base/x/1")
    assert routes.routes["b"].upstream_path("/old") == "/"


def test_default_file_is_right_and_takes_its_upstream_from_the_environment():
    routes = routes_file.read(DEFAULT_ROUTES_PATH, {"TOLLWAY_UPSTREAM_URL": "http://127.0.0.1:9900"})
    assert routes.match("x", "POST", "/v1/chat/completions").id == "chat"
    found = routes.match("x", "GET", "/anything")
    assert (found.id, found.needs_key, found.limiter_away) == ("api", True, LimiterAway.DEGRADE)
    assert found.upstream.urls == ("http://127.0.0.1:9900",)


def test_every_violation_is_reported_with_its_place():
    found = violations(
        """
version: 2
surprise: 1
upstreams: {u: {urls: ["ftp://u", "http://u/path"]}}
routes:
  - {id: "Bad Id", match: {path: /a, path_prefix: /b}, upstream: u}
  - {id: b, match: {path: a/../b}, upstream: u, cost_units: 0, auth: maybe}
  - {id: c, match: {path: /c}, upstream: u, auth: none, scopes: [x], timeouts: {connect: 1}}
"""
    )
    text = "\n".join(found)
    for place in (
        "version:",
        "surprise:",
        "upstreams.u.urls:",
        "routes[0].id:",
        "routes[0].match:",
        "routes[1].match.path:",
        "routes[1].cost_units:",
        "routes[1].auth:",
        "routes[2].timeouts.connect:",
    ):
        assert place in text, place


def test_references_are_checked_across_the_file():
    found = violations(
        HEAD
        + """
  - {id: a, match: {path: /a}, upstream: nowhere}
  - {id: a, match: {path: /b}, upstream: u, rewrite: {strip_prefix: /c}}
"""
    )
    assert [line.split(":")[0] for line in found] == [
        "routes[0].upstream",
        "routes[1].id",
        "routes[1].rewrite.strip_prefix",
    ]


def test_unset_variable_unreadable_file_and_bad_yaml_are_violations(tmp_path):
    assert violations("version: 1\nupstreams: {u: {urls: ['${NOPE}']}}\nroutes: []")[0].startswith(
        "upstreams.u.urls[0]"
    )
    assert violations("a: [")[0].startswith("not YAML")
    assert violations("") == ["file: Input should be a valid dictionary or instance of RoutesFile"]
    with pytest.raises(RoutesFileError):
        routes_file.read(tmp_path / "missing.yaml", {})
