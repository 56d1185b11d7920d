# ruff: noqa: E501 - one case is one line
"""What a routes file is refused for: one line per problem, with its path in the file."""

from __future__ import annotations

import pytest

from edge_proxy.http1.server.request import HeadParser
from edge_proxy.routing import document
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.file import METHODS, RoutesFileError

ROUTE = "{id: a, match: {path_prefix: /}, upstream: u}"


def text(*routes: str, upstreams: str = "{u: {urls: ['http://u']}}") -> str:
    lines = "".join(f"  - {route}\n" for route in routes or (ROUTE,))
    return f"version: 1\nupstreams: {upstreams}\nroutes:\n{lines}"


def violations(content: str) -> list[str]:
    with pytest.raises(RoutesFileError) as caught:
        routes_file.parse(content, {})
    return caught.value.violations


@pytest.mark.parametrize(
    "url",
    [
        *("http://ü.example", "http://a..b", "http://.a", "http://a b", "http://a\\tb", "http://-a", "http://a-.b"),
        *("http://a:0", "http://a:65536", "http://a:x", "http://a:", "http://1.2", "http://256.1.1.1", "http://[::g]"),
        *("http://" + "a" * 64, "http://" + ".".join(["a" * 60] * 5), "ftp://a", "http://", "a", "//a", "http:a"),
        *("http://a/b", "http://a?", "http://a#", "http://u@a", "http://a\\\\b", "http://a%62", "http://a,b"),
    ],
)
def test_an_upstream_that_is_no_origin_is_refused_before_any_request_needs_it(url):
    (violation,) = violations(text(upstreams='{u: {urls: ["' + url + '"]}}'))
    assert violation.startswith("upstreams.u.urls: ")
    assert "\n" not in violation


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.b:8443", "http://[::1]:80", "http://127.0.0.1:1", "http://a_b."]
)
def test_an_origin_is_taken(url):
    assert routes_file.parse(text(upstreams='{u: {urls: ["' + url + '"]}}'), {}).upstreams["u"].urls == (url,)


def test_keys_that_stand_twice_are_named_with_both_lines():
    content = (
        "version: 1\nupstreams:\n  u: {urls: ['http://u']}\n  u: {urls: ['http://v']}\n"
        "routes:\n  - {id: a, id: b, match: {path_prefix: /}, upstream: u}\nroutes:\n  - " + ROUTE + "\n"
    )
    assert violations(content) == [
        "upstreams.u: stands twice, in lines 3 and 4",
        "routes[0].id: stands twice, in lines 6 and 6",
        "routes: stands twice, in lines 5 and 7",
    ]


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (
            ("{id: a, match: {path: /x}, upstream: u}", "{id: b, match: {path: /x}, upstream: u}"),
            "routes[1].match: routes[0] has the same match and takes every method first",
        ),
        (
            ("{id: a, match: {path: '/x/{y}'}, upstream: u}", "{id: b, match: {path: '/x/{z}/'}, upstream: u}"),
            "routes[1].match: routes[0] has the same match and takes every method first",
        ),
        (
            (
                "{id: a, match: {path: /x, methods: [GET, PUT]}, upstream: u}",
                "{id: b, match: {path: /x, methods: [PUT, POST]}, upstream: u}",
            ),
            "routes[1].match: routes[0] has the same match and takes PUT first",
        ),
        (
            (
                "{id: a, match: {hosts: [a.test, b.test], path_prefix: /x}, upstream: u}",
                "{id: b, match: {hosts: [b.test], path_prefix: /x}, upstream: u}",
            ),
            "routes[1].match: routes[0] has the same match and takes every method first",
        ),
        (
            ("{id: a, match: {path: '/%78'}, upstream: u}", "{id: b, match: {path: /x}, upstream: u}"),
            "routes[1].match: routes[0] has the same match and takes every method first",
        ),
        (("{id: a, match: {path: /health}, upstream: u}",), "a path whose GET and HEAD the edge answers by itself"),
        (("{id: a, match: {path_prefix: /health/ready}, upstream: u}",), "GET and HEAD the edge answers by itself"),
        (("{id: a, match: {path: /health/live, methods: [HEAD]}, upstream: u}",), "the edge answers by itself"),
        (("{id: a, match: {path: /, methods: [FETCH]}, upstream: u}",), "no request can have the method 'FETCH'"),
        (("{id: a, match: {path: /, methods: [get]}, upstream: u}",), "no request can have the method 'get'"),
        (("{id: a, match: {path: /, methods: [CONNECT]}, upstream: u}",), "no request can have the method 'CONNECT'"),
        (("{id: a, match: {path: /, methods: [GET, GET]}, upstream: u}",), "routes[0].match.methods: 'GET' stands twice"),
        (("{id: a, match: {hosts: [a..b], path: /}, upstream: u}",), "routes[0].match.hosts: 'a..b' is not a lower-case"),
        *(
            ((f"{{id: a, match: {{hosts: ['{host}'], path: /}}, upstream: u}}",), f"routes[0].match.hosts: '{host}' ")
            for host in ("a.test:080", "a.test:0", "a.test:65536", "a.test:٨٠", "*.test:0080")
        ),
        (("{id: a, match: {hosts: [a, a], path: /}, upstream: u}",), "routes[0].match.hosts: 'a' stands twice"),
        (("{id: a, match: {path: /}, rewrite: {add_prefix: '/a b'}, upstream: u}",), "routes[0].rewrite.add_prefix: "),
        (('{id: a, match: {path: /}, rewrite: {add_prefix: "/a\\tb"}, upstream: u}',), "routes[0].rewrite.add_prefix: "),
        (('{id: a, match: {path: /}, rewrite: {add_prefix: "/a\\r\\nX: y"}, upstream: u}',), "rewrite.add_prefix: "),
        (("{id: a, match: {path: /}, rewrite: {add_prefix: /ü}, upstream: u}",), "routes[0].rewrite.add_prefix: "),
        (("{id: a, match: {path: /}, rewrite: {add_prefix: /a/../b}, upstream: u}",), "routes[0].rewrite.add_prefix: "),
        (("{id: a, match: {path: /}, rewrite: {add_prefix: '/a?b'}, upstream: u}",), "routes[0].rewrite.add_prefix: "),
        (("{id: a, match: {path: /x y}, rewrite: {strip_prefix: /x y}, upstream: u}",), "rewrite.strip_prefix: "),
        (("{id: a, match: {path: /}, upstream: u, retry: 3}",), "routes[0].retry: no such field"),
        (("{id: a, match: {path: /, verbs: [GET]}, upstream: u}",), "routes[0].match.verbs: no such field"),
        (("{id: a, match: {path: /}, upstream: u, cors: {origins: ['https://A.test']}}",), "routes[0].cors.origins: "),
        (("{id: a, match: {path: /}, upstream: u, cors: {origins: ['https://a/']}}",), "routes[0].cors.origins: "),
        (
            ("{id: a, match: {path: /}, upstream: u, cors: {origins: ['*'], credentials: true}}",),
            "routes[0].cors: `credentials` need origins by name",
        ),
        (("{id: a, match: {path: /}, upstream: u, cors: {origins: ['*'], headers: ['a:b']}}",), "routes[0].cors.headers: "),
    ],
)  # fmt: skip
def test_what_no_request_could_mean_is_refused_in_one_line(routes, expected):
    found = violations(text(*routes))
    assert any(expected in violation for violation in found)
    assert all(violation.isprintable() for violation in found)


def test_an_upstreams_name_is_plain():
    (violation,) = violations(text(upstreams="{u: {urls: ['http://u']}, 'a b': {urls: ['http://u']}}"))
    assert violation.startswith("upstreams.a b: a name has 1 to 64")


@pytest.mark.parametrize(
    "routes",
    [
        (
            "{id: a, match: {path: /x, methods: [GET]}, upstream: u}",
            "{id: b, match: {path: /x, methods: [PUT]}, upstream: u}",
            "{id: c, match: {path: /x}, upstream: u}",
        ),
        ("{id: a, match: {path: /x}, upstream: u}", "{id: b, match: {path_prefix: /x}, upstream: u}"),
        ("{id: a, match: {hosts: [a.test], path: /x}, upstream: u}", "{id: b, match: {path: /x}, upstream: u}"),
        (
            "{id: a, match: {path: /x}, upstream: u, trailing_slash: distinct}",
            "{id: b, match: {path: /x/}, upstream: u, trailing_slash: distinct}",
        ),
        ("{id: a, match: {path: /X}, upstream: u}", "{id: b, match: {path: /x}, upstream: u}"),
        ("{id: a, match: {path: /health, methods: [POST]}, upstream: u}", "{id: b, match: {path: /healthy}, upstream: u}"),
        ("{id: a, match: {path_prefix: /}, rewrite: {add_prefix: /a%20b}, upstream: u}",),
    ],
)  # fmt: skip
def test_routes_that_each_can_be_reached_are_taken(routes):
    assert len(routes_file.parse(text(*routes), {}).routes) == len(routes)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_that_a_route_may_name_can_arrive(method):
    assert HeadParser().parse(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()).method == method


@pytest.mark.parametrize(
    "content",
    [
        *("a: [", "a: &a [*a]", "- " * 5_000 + "x", "\x00", "!!python/object:os.system x", "2021-99-99"),
        *("[" * 900 + "]" * 900, "[" * 200_000, "{a: " * 200_000, "a: !!timestamp x", "a: !!bool x", "a: !!int ''"),
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [" + ",".join([f"*{p}"] * 9) + "]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    ],
)
def test_what_is_no_document_of_a_bounded_size_is_one_violation(content):
    (violation,) = violations(content)
    assert violation.startswith("file: ")
    assert violation.isprintable()


def test_a_text_above_the_bound_is_not_read(monkeypatch):
    monkeypatch.setattr(document, "CHARACTERS_MAX", 10)
    assert violations(text()) == ["file: has more than 10 characters"]
