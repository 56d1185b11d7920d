"""One resource, one name: what common upstreams serve alike never matches two routes."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_proxy.http1.target import NotNormal, folded, normal_host, normal_path, without_parameters
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.routes import Route

HEAD = "version: 1\nupstreams: {u: {urls: [http://u]}}\n"
ROUTES = """
routes:
  - {id: admin, match: {path_prefix: /admin}, upstream: u, scopes: ["admin"]}
  - {id: chat, match: {path: /v1/chat/completions}, upstream: u, cost_units: 7}
  - {id: item, match: {path: "/items/{item_id}"}, upstream: u, cost_units: 2, path_parameters: keep}
  - {id: mine, match: {path: /items/mine}, upstream: u, cost_units: 5, path_parameters: keep}
  - {id: tilde, match: {path: "/~a+b:c@d=e!f"}, upstream: u, cost_units: 3}
  - {id: umlaut, match: {path: "/caf%c3%a9"}, upstream: u, cost_units: 4}
  - {id: any, match: {path_prefix: /}, upstream: u, path_parameters: keep}
"""
BASES = [
    "/admin",
    "/admin/users",
    "/v1/chat/completions",
    "/items/7",
    "/items/mine",
    "/~a+b:c@d=e!f",
    "/caf%C3%A9",
    "/",
]


def table(case: str = "", routes: str = ROUTES):
    return routes_file.parse(HEAD + (f"case: {case}\n" if case else "") + routes, {})


def through_the_edge(routes, raw: str) -> tuple[Route, str] | None:
    """Return the route and the forwarded path, or None where the edge refuses."""
    try:
        path = normal_path(raw.encode())
        plain = without_parameters(path)
    except NotNormal:
        return None
    route = routes.match("a", "GET", plain)
    if not isinstance(route, Route) or (plain != path and not route.keeps_parameters):
        return None
    return route, route.upstream_path(path)


# How upstreams reduce the path that they are sent.


def aiohttp_view(path: str) -> str:
    return yarl.URL.build(path=path, encoded=True).path_safe


def nginx_view(path: str) -> str:
    path = re.sub(r"/+", "/", unquote(path, errors="surrogateescape"))
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def nginx_regex_view(path: str) -> str:
    """A `location ~ ^/admin$`: in PCRE, as in Python's `re` and Ruby, `$` also stands before a last line feed."""
    return nginx_view(path).removesuffix("\n")


def express_view(path: str) -> str:
    path = path.lower()
    return path.removesuffix("/") or "/"


def tomcat_view(path: str) -> str:
    return nginx_view(re.sub(r";[^/]*", "", path))


VIEWS = [
    pytest.param(aiohttp_view, "exact", id="aiohttp"),
    pytest.param(aiohttp_view, "", id="aiohttp-unsaid"),
    pytest.param(nginx_view, "exact", id="nginx"),
    pytest.param(nginx_view, "", id="nginx-unsaid"),
    pytest.param(nginx_regex_view, "exact", id="nginx-regex"),
    pytest.param(tomcat_view, "exact", id="tomcat"),
    pytest.param(express_view, "insensitive", id="express"),
    pytest.param(express_view, "", id="express-unsaid"),
]


@st.composite
def spellings(draw, base: str) -> str:
    spelled = ""
    for character in base:
        how = draw(st.sampled_from(["plain"] * 6 + ["upper", "lower", "swap", "twice"]))
        if character == "/":
            spelled += draw(st.sampled_from(["/"] * 30 + ["//", "/./", "/x/../", "%2F", "\\", ";p=1/", "%3b/", "/;/"]))
        elif character == "%" or how == "plain":
            spelled += character
        elif how == "swap":
            spelled += character.swapcase()
        elif how == "twice":
            spelled += draw(st.sampled_from([character] * 5 + [f"%25{ord(character):02x}"]))
        else:
            spelled += f"%{ord(character):02{'X' if how == 'upper' else 'x'}}"
    return spelled + draw(st.sampled_from([""] * 6 + ["/", ";x", "%3Bx", ";a/b", "/.", "%2e", "%0a"]))


@pytest.mark.parametrize(("view", "case"), VIEWS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_an_upstream_serves_alike_has_one_route_scope_and_price(view, case, data):
    base = data.draw(st.sampled_from(BASES))
    routes = table(case)
    seen: dict[str, tuple[Route, str]] = {}
    for raw in (base, data.draw(spellings(base)), data.draw(spellings(base)), data.draw(spellings(base))):
        found = through_the_edge(routes, raw)
        if found is None:
            continue
        route, forwarded = found
        other, other_raw = seen.setdefault(view(forwarded), (route, raw))
        assert route is other, f"{raw!r} and {other_raw!r} are one resource upstream"


@given(base=st.sampled_from(BASES), data=st.data())
def test_normal_form_is_a_fixed_point(base, data):
    try:
        path = normal_path(data.draw(spellings(base)).encode())
    except NotNormal:
        return
    assert normal_path(path.encode()) == path


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/%61dmin", "/admin"),
        ("/v1/chat/%63ompletions", "/v1/chat/completions"),
        ("/%7Eme/%2bx%40y%3az%3D%21", "/~me/+x@y:z=!"),
        ("/a%20b%c3%bc", "/a%20b%C3%BC"),
        ("/file%2Etxt", "/file.txt"),
        ("/a%3bx;y", "/a%3Bx;y"),
        ("/100%25", "/100%25"),
        ("/", "/"),
    ],
)
def test_spellings_have_one_form(raw, expected):
    assert normal_path(raw.encode()) == expected


@pytest.mark.parametrize(
    "raw",
    [
        *(
            "/a%2fb",
            "/a%5Cb",
            "/a%00",
            "/a%zz",
            "/a%",
            "/a%2",
            "/%a%39",
            "//a",
            "/a//b",
            "/a\\b",
            "/./a",
            "/a/..",
            "/%2e%2e/a",
        ),
        *("/.%2e/a", "/..;/a", "/..%3b/a", "/%252e%252e/a", "/%252fa", "/a%253Bx", "/%c0%ae/a", "/%C1%9Ca", "/%ff"),
        *("/admin%0a", "/admin%0D%0A", "/a%09b", "/a%1f", "/a%7F", "/a%250a", "/a%257f"),
        *("/a b", "/a\x7f", "/ü", "/a#b", "/a<b", "/{a}"),
    ],
)
def test_what_has_no_normal_form_is_refused(raw):
    with pytest.raises(NotNormal):
        normal_path(raw.encode("latin-1"))


@pytest.mark.parametrize(
    ("path", "plain"),
    [("/a;x", "/a"), ("/a;x/b%3By;z", "/a/b"), ("/a", "/a"), ("/;x", "/"), ("/a/;x", "/a/")],
)
def test_parameters_do_not_name_the_resource(path, plain):
    assert without_parameters(path) == plain


def test_segment_of_parameters_only_is_refused():
    with pytest.raises(NotNormal):
        without_parameters("/;x/admin")


def test_folding_knows_letters_beyond_ascii_and_makes_no_ascii_of_them():
    assert folded("/Caf%C3%89") == folded("/caf%C3%A9")
    assert folded("/to%E2%84%AAen") != folded("/token")
    assert folded("/%7BA%7D") == folded("/%7Ba%7D")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Admin.Test", "admin.test"),
        ("admin.test.", "admin.test"),
        ("admin.test.:80", "admin.test"),
        ("admin.test:0080", "admin.test"),
        ("admin.test:8080", "admin.test:8080"),
        ("[::1]:80", "[::1]"),
    ],
)
def test_host_has_one_form(raw, expected):
    assert normal_host(raw.encode()) == expected


@pytest.mark.parametrize("raw", ["", "a..", "a:0", "a:65536", "a:", "u@a", "a/b", "a b", "[::1].", "a,b", "ü"])
def test_what_is_no_host_is_refused(raw):
    with pytest.raises(NotNormal):
        normal_host(raw.encode())
