from __future__ import annotations

import pytest

from edge_proxy.config import DEFAULT_ROUTES_PATH
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.file import RoutesFileError
from edge_proxy.routing.routes import CaseDiffers, LimiterAway, MethodNotAllowed

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
    assert violations("a: [")[0].startswith("file: is not YAML")
    assert violations("") == ["file: Input should be a valid dictionary or instance of RoutesFile"]
    with pytest.raises(RoutesFileError):
        routes_file.read(tmp_path / "missing.yaml", {})


def matched(routes, path, host="x", method="GET"):
    found = routes.match(host, method, path)
    return found.id if hasattr(found, "id") else found


CASED = (
    "{id: admin, match: {path_prefix: /admin}, upstream: u, scopes: [admin]}",
    "{id: mixed, match: {path: /Reports}, upstream: u}",
    "{id: any, match: {path_prefix: /}, upstream: u}",
)


def test_a_path_that_differs_from_a_route_in_case_only_reaches_no_broader_route_unless_somebody_said_so():
    unsaid = table(*CASED)
    assert matched(unsaid, "/admin/x") == "admin"
    assert isinstance(matched(unsaid, "/Admin/x"), CaseDiffers)
    assert isinstance(matched(unsaid, "/reports"), CaseDiffers)
    assert matched(unsaid, "/Reports") == "mixed"
    assert matched(unsaid, "/items/AbC") == "any"
    text = HEAD + "\n".join(f"  - {route}" for route in CASED)
    exact = routes_file.parse(text.replace("version: 1", "version: 1\ncase: exact"), {})
    assert matched(exact, "/Admin/x") == "any"
    insensitive = routes_file.parse(text.replace("version: 1", "version: 1\ncase: insensitive"), {})
    assert (matched(insensitive, "/ADMIN/x"), matched(insensitive, "/reportS")) == ("admin", "mixed")


def test_routes_that_differ_in_case_only_are_two_routes_where_case_matters():
    both = table("{id: upper, match: {path: /A}, upstream: u}", "{id: lower, match: {path: /a}, upstream: u}")
    assert (matched(both, "/A"), matched(both, "/a")) == ("upper", "lower")


def test_an_exact_route_takes_one_trailing_slash_unless_it_says_otherwise():
    routes = table(
        "{id: same, match: {path: /same}, upstream: u}",
        "{id: without, match: {path: /pair}, upstream: u, trailing_slash: distinct}",
        "{id: with, match: {path: /pair/}, upstream: u, trailing_slash: distinct}",
    )
    assert [matched(routes, path) for path in ("/same", "/same/", "/pair", "/pair/")] == [
        "same",
        "same",
        "without",
        "with",
    ]


def test_templates_are_kept_in_normal_form():
    routes = table("{id: a, match: {path: '/%61/caf%c3%a9/{x}'}, upstream: u}")
    assert routes.routes["a"].path == "/a/caf%C3%A9/{x}"


@pytest.mark.parametrize("path", ["/a%2Fb", "/%2e%2e", "/a;b", "/a%3Bb", "/%252e", "/a%ff"])
def test_a_template_without_a_normal_form_is_refused(path):
    for match in (f"path: '{path}'", f"path_prefix: '{path}'"):
        (line,) = violations(HEAD + f"  - {{id: a, match: {{{match}}}, upstream: u}}")
        assert line.startswith(f"routes[0].match.{match.split(':')[0]}:")


def test_the_default_port_is_the_same_as_none():
    routes = table(
        "{id: named, match: {hosts: ['a.test:80'], path_prefix: /}, upstream: u}",
        "{id: other, match: {hosts: ['a.test:81'], path_prefix: /}, upstream: u}",
    )
    assert (matched(routes, "/", "a.test"), matched(routes, "/", "a.test:81")) == ("named", "other")
    assert matched(routes, "/", "a.test:82") is None


def test_trace_is_taken_by_no_route_that_does_not_name_it():
    routes = table(
        "{id: traced, match: {path: /t, methods: [TRACE]}, upstream: u}",
        "{id: any, match: {path: /a}, upstream: u}",
    )
    assert matched(routes, "/t", method="TRACE") == "traced"
    assert "GET" in routes.match("x", "TRACE", "/a").allow


def test_a_prefix_is_stripped_however_it_was_spelled():
    text = (
        "version: 1\ncase: insensitive\nupstreams: {u: {urls: [http://u]}}\nroutes:\n"
        "  - {id: a, match: {path_prefix: /v9/x}, upstream: u, rewrite: {strip_prefix: /v9/x, add_prefix: /b}}\n"
    )
    route = routes_file.parse(text, {}).routes["a"]
    assert [route.upstream_path(path) for path in ("/V9/X/y", "/v9;p/x/y", "/v9/x", "/v9/x/")] == [
        "/b/y",
        "/b/y",
        "/b/",
        "/b/",
    ]
