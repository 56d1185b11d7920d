"""The compiled routes: a trie over path segments, immutable, swapped as a whole on reload.

A lookup walks one dictionary per segment and remembers the prefixes it passes. The most specific route wins: a literal
segment before a parameter, a full match before a prefix, a longer prefix before a shorter one; at the same place a
named host before a wildcard before any, then the file's order. Where a path matches but no method does, the answer is
the list of methods that would (405).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class LimiterAway(Enum):
    """What a route does while the limiter cannot be asked."""

    DEGRADE = "degrade"
    OPEN = "open"
    CLOSED = "closed"


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
    body_bytes_max: int

    @property
    def path_template(self) -> str:
        """Return the path as it stands in events: never a raw path."""
        return self.path.rstrip("/") + "/*" if self.is_prefix else self.path

    def upstream_path(self, path: str) -> str:
        """Return the path that the upstream is asked for."""
        if self.strip_prefix and (path + "/").startswith(self.strip_prefix + "/"):
            path = path[len(self.strip_prefix) :] or "/"
        return self.add_prefix + path if self.add_prefix else path


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodNotAllowed:
    """The path is known, the method is not."""

    allow: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    full: list[Route] = field(default_factory=list)
    prefix: list[Route] = field(default_factory=list)


class RouteTable:
    """Finds the route of a request."""

    __slots__ = ("_root", "routes", "upstreams")

    def __init__(self, root: _Node, routes: Iterable[Route], upstreams: Mapping[str, Upstream]) -> None:
        self._root = root
        self.routes = MappingProxyType({route.id: route for route in routes})
        self.upstreams = MappingProxyType(dict(upstreams))

    def match(self, host: str, method: str, path: str) -> Route | MethodNotAllowed | None:
        """Return the route, the methods that the path would take, or None where nothing matches.

        Args:
            host: Lower-case `Host`, with its port where it had one.
            method: Upper-case method.
            path: Path without query, as it came.
        """
        segments = path.split("/")[1:]
        if segments[-1] == "":
            segments.pop()
        allow: set[str] = set()
        for candidates in _walk(self._root, segments, 0):
            for route in candidates:
                if route.hosts and not _host_matches(route.hosts, host):
                    continue
                if not route.methods or method in route.methods:
                    return route
                allow |= route.methods
        return MethodNotAllowed(allow=tuple(sorted(allow))) if allow else None


def compile_table(routes: list[Route], upstreams: Mapping[str, Upstream]) -> RouteTable:
    """Build the table. Routes are taken in the file's order."""
    root = _Node()
    for route in routes:
        node = root
        for segment in route.path.strip("/").split("/") if route.path != "/" else ():
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        (node.prefix if route.is_prefix else node.full).append(route)
    _sort_by_host(root)
    return RouteTable(root, routes, upstreams)


def _walk(node: _Node, segments: list[str], depth: int) -> Iterable[list[Route]]:
    """Yield candidate lists, the most specific place first. Depth is bounded by the depth of the trie."""
    if depth == len(segments):
        if node.full:
            yield node.full
    else:
        literal = node.literals.get(segments[depth])
        if literal is not None:
            yield from _walk(literal, segments, depth + 1)
        if node.parameter is not None and segments[depth]:
            yield from _walk(node.parameter, segments, depth + 1)
    if node.prefix:
        yield node.prefix


def _host_matches(patterns: tuple[str, ...], host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    for pattern in patterns:
        candidate = host if ":" in pattern else name
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
