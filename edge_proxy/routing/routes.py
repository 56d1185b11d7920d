"""The compiled routes: a trie over path segments, immutable, swapped as a whole on reload.

A lookup walks one dictionary per segment and remembers the prefixes it passes. The most specific route wins: a literal
segment before a parameter, a full match before a prefix, a longer prefix before a shorter one; at the same place a
named host before a wildcard before any, then the file's order. Where a path matches but no method does, the answer is
the list of methods that would (405). TRACE is taken by no route that does not name it.

Paths are matched in the normal form of `http1.target`, templates are kept in it. Letter case has three rules, because
only the operator knows what the upstreams do with it. `EXACT`: another case is another path. `INSENSITIVE`: case does
not matter. Without a word (`GUARDED`) case matters too, but a path that would match another route if case did not is
refused: behind an upstream that folds case, `/Admin` must not leave the route of `/admin` for a broader one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from edge_proxy.http1.target import DEFAULT_PORT, folded
from edge_proxy.routing.cors import Cors

# What a route takes that names no methods.
COMMON_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class LimiterAway(Enum):
    """What a route does while the limiter cannot be asked."""

    DEGRADE = "degrade"
    OPEN = "open"
    CLOSED = "closed"


class Case(Enum):
    """What letter case means in paths."""

    EXACT = "exact"
    INSENSITIVE = "insensitive"
    GUARDED = "guarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A named set of equal origins."""

    name: str
    urls: tuple[str, ...]
    keep_alive_connections: int
    keep_alive_idle_seconds: int
    connections_max: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """What happens to the requests that match."""

    id: str
    hosts: tuple[str, ...]
    path: str
    is_prefix: bool
    methods: frozenset[str]
    upstream: Upstream
    strip_prefix: str
    add_prefix: str
    needs_key: bool
    scopes: frozenset[str]
    cost_units: int
    limiter_away: LimiterAway
    connect_timeout_seconds: float
    first_byte_timeout_seconds: float
    idle_timeout_seconds: float
    total_timeout_seconds: float
    body_bytes_max: int
    keeps_parameters: bool = False
    is_slash_distinct: bool = False
    cors: Cors | None = None

    @property
    def path_template(self) -> str:
        """Return the path as it stands in events: never a raw path."""
        return self.path.rstrip("/") + "/*" if self.is_prefix else self.path

    def upstream_path(self, path: str) -> str:
        """Return the path that the upstream is asked for.

        The route has matched, so as many segments are stripped as the prefix has, whatever their case and parameters.
        """
        end = 0
        for _ in range(self.strip_prefix.count("/")):
            end = path.find("/", end + 1)
            if end < 0:
                return self.add_prefix + "/"
        return self.add_prefix + path[end:]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodNotAllowed:
    """The path is known, the method is not."""

    allow: tuple[str, ...]


class CaseDiffers:
    """In another letter case the path would match another route, and nobody said that case matters."""


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    full: list[Route] = field(default_factory=list)
    prefix: list[Route] = field(default_factory=list)


class RouteTable:
    """Finds the route of a request."""

    __slots__ = ("_case", "_folded_root", "_has_capitals", "_root", "routes", "upstreams")

    def __init__(
        self, *, root: _Node, folded_root: _Node, routes: Iterable[Route], upstreams: Mapping[str, Upstream], case: Case
    ) -> None:
        self._root = root
        self._folded_root = folded_root
        self._case = case
        self.routes = MappingProxyType({route.id: route for route in routes})
        self.upstreams = MappingProxyType(dict(upstreams))
        self._has_capitals = any(folded(route.path) != route.path for route in self.routes.values())

    def match(self, host: str, method: str, path: str) -> Route | MethodNotAllowed | CaseDiffers | None:
        """Return the route, the methods that the path would take, or None where nothing matches.

        Args:
            host: `Host` in normal form.
            method: Upper-case method.
            path: Path in normal form, without query and parameters.
        """
        match self._case:
            case Case.GUARDED:
                return self._match_guarded(host, method, path)
            case Case.EXACT:
                return _find(self._root, host, method, path)
            case Case.INSENSITIVE:
                return _find(self._folded_root, host, method, folded(path))

    def _match_guarded(self, host: str, method: str, path: str) -> Route | MethodNotAllowed | CaseDiffers | None:
        found = _find(self._root, host, method, path)
        if not isinstance(found, Route):
            return found
        name = folded(path)
        if name == path and not self._has_capitals:
            return found
        other = _find(self._folded_root, host, method, name)
        if other is found or (isinstance(other, Route) and _place(other) == _place(found)):
            return found
        return CaseDiffers()


def _find(root: _Node, host: str, method: str, path: str) -> Route | MethodNotAllowed | None:
    search = _Search(host, method, path)
    # The first segment is what stands before the first slash: nothing.
    found = search.walk(root, 1)
    if found is not None:
        return found
    return MethodNotAllowed(allow=tuple(sorted(search.allow))) if search.allow else None


class _Search:
    """One look-up, the most specific place first; `allow` collects the methods of routes that do not take this one."""

    __slots__ = ("_ends_with_slash", "_host", "_method", "_segments", "allow")

    def __init__(self, host: str, method: str, path: str) -> None:
        self._host = host
        self._method = method
        self._segments = path.split("/")
        self._ends_with_slash = self._segments[-1] == ""
        if self._ends_with_slash:
            self._segments.pop()
        self.allow: frozenset[str] = frozenset()

    def walk(self, node: _Node, depth: int) -> Route | None:
        """Return the route of the path's segments from `depth` on. Depth is bounded by the depth of the trie."""
        found: Route | None = None
        if depth == len(self._segments):
            if node.full:
                found = self._pick(node.full)
        else:
            segment = self._segments[depth]
            literal = node.literals.get(segment)
            if literal is not None:
                found = self.walk(literal, depth + 1)
            if found is None and node.parameter is not None and segment:
                found = self.walk(node.parameter, depth + 1)
        if found is None and node.prefix:
            found = self._pick(node.prefix)
        return found

    def _pick(self, candidates: list[Route]) -> Route | None:
        for route in candidates:
            if route.hosts and not _host_matches(route.hosts, self._host):
                continue
            if route.is_slash_distinct and not route.is_prefix and self._ends_with_slash != route.path.endswith("/"):
                continue
            if self._method in route.methods or (not route.methods and self._method != "TRACE"):
                return route
            self.allow |= route.methods or COMMON_METHODS
        return None


def _place(route: Route) -> tuple[str, bool]:
    return folded(route.path), route.is_prefix


def compile_table(routes: list[Route], upstreams: Mapping[str, Upstream], case: Case = Case.GUARDED) -> RouteTable:
    """Build the table. Routes are taken in the file's order."""
    root, folded_root = _Node(), _Node()
    for route in routes:
        _place_route(root, route, route.path)
        _place_route(folded_root, route, folded(route.path))
    _sort_by_host(root)
    _sort_by_host(folded_root)
    return RouteTable(root=root, folded_root=folded_root, routes=routes, upstreams=upstreams, case=case)


def _place_route(node: _Node, route: Route, path: str) -> None:
    for segment in path.strip("/").split("/") if path != "/" else ():
        if segment.startswith("{"):
            node.parameter = node.parameter or _Node()
            node = node.parameter
        else:
            node = node.literals.setdefault(segment, _Node())
    (node.prefix if route.is_prefix else node.full).append(route)


def _host_matches(patterns: tuple[str, ...], host: str) -> bool:
    name, colon, _ = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    name, full = (name, host) if colon else (host, f"{host}:{DEFAULT_PORT}")
    for pattern in patterns:
        candidate = full if ":" in pattern else name
        if pattern == candidate or (pattern.startswith("*.") and candidate.endswith(pattern[1:])):
            return True
    return False


def _sort_by_host(node: _Node) -> None:
    def rank(route: Route) -> int:
        if not route.hosts:
            return 2
        return 1 if all(host.startswith("*.") for host in route.hosts) else 0

    node.full.sort(key=rank)
    node.prefix.sort(key=rank)
    for child in node.literals.values():
        _sort_by_host(child)
    if node.parameter is not None:
        _sort_by_host(node.parameter)
