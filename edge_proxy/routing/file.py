"""The routes file: what may stand in it, and everything that is wrong with it, told at once.

The file is YAML. `${NAME}` inside a string is replaced by that environment variable. Unknown fields are violations, so
that a typo is never silently a default. `read` returns a compiled, immutable table or raises `RoutesFileError` with
one violation per problem: the path in the file and what is wrong there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from edge_proxy.http1.client.origin import parse_origin
from edge_proxy.http1.target import PORT_MAX, NotNormal, normal_path, without_parameters
from edge_proxy.routing import document
from edge_proxy.routing.cors import ANY_ORIGIN, Cors
from edge_proxy.routing.overlaps import Overlaps
from edge_proxy.routing.routes import COMMON_METHODS, Case, LimiterAway, Route, RouteTable, Upstream, compile_table

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+|\{[a-z][a-z0-9_]*\}")
_HOST: Final = re.compile(
    r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9\-_]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9\-_]{0,61}[a-z0-9])?(?::([1-9][0-9]{0,4}))?"
)
_PREFIX: Final = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})+)+")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.\-]*://[a-z0-9\-._\[\]:]+")
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_NAME_RULE: Final = "a name has 1 to 64 letters, digits, `_`, `.` or `-` and begins with a letter or digit"
# What the parser of requests knows, without CONNECT, which a proxy of this kind refuses.
METHODS: Final = COMMON_METHODS | {
    *("TRACE", "COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND"),
    *("UNBIND", "ACL", "REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE"),
    *("MKCALENDAR", "LINK", "UNLINK", "SOURCE"),
}
_ROUTE_ID: Final = r"^[a-z][a-z0-9_\-]{0,63}$"
ROUTES_MAX: Final = 10_000
# A path's template is part of every event, and events have a bound.
PATH_CHARACTERS_MAX: Final = 1_024


class RoutesFileError(Exception):
    """The routes file cannot be used.

    Args:
        violations: One line per problem: path in the file, then what is wrong.
    """

    def __init__(self, violations: list[str]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class UpstreamEntry(_Strict):
    """Where requests can go."""

    urls: Annotated[list[str], Field(min_length=1, max_length=64)]
    keep_alive_connections: Annotated[int, Field(ge=0, le=65_536)] = 256
    keep_alive_idle_seconds: Annotated[int, Field(ge=1, le=3_600)] = 30
    connections_max: Annotated[int, Field(ge=1, le=65_536)] = 4_096

    @field_validator("urls")
    @classmethod
    def _urls_are_origins(cls, urls: list[str]) -> list[str]:
        return [parse_origin(url).url for url in urls]


class MatchEntry(_Strict):
    """Which requests a route is for: exactly one of `path` and `path_prefix`."""

    hosts: Annotated[list[str], Field(max_length=100)] = []
    path: Annotated[str, Field(max_length=PATH_CHARACTERS_MAX)] | None = None
    path_prefix: Annotated[str, Field(max_length=PATH_CHARACTERS_MAX)] | None = None
    methods: Annotated[list[str], Field(max_length=16)] = []

    @field_validator("hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            found = _HOST.fullmatch(host)
            if found is None:
                raise ValueError(
                    f"{host!r} is not a lower-case host name, optionally with a leading `*.` and a plain `:port`"
                )
            if int(found[1] or 0) > PORT_MAX:
                raise ValueError(f"{host!r} has a port that no request can name")
        return _each_once(hosts)

    @field_validator("methods")
    @classmethod
    def _methods_can_be(cls, methods: list[str]) -> list[str]:
        return _known_methods(methods)

    @field_validator("path", "path_prefix")
    @classmethod
    def _path_has_plain_segments(cls, path: str | None) -> str | None:
        if path is None or path == "/":
            return path
        segments = path.removesuffix("/").split("/")
        if segments[0] or not all(_SEGMENT.fullmatch(s) and s not in {".", ".."} for s in segments[1:]):
            raise ValueError(f"{path!r} is not `/segment/{{name}}/…`")
        return _normal_template(path)

    @model_validator(mode="after")
    def _one_path(self) -> MatchEntry:
        if (self.path is None) == (self.path_prefix is None):
            raise ValueError("give exactly one of `path` and `path_prefix`")
        return self


class RewriteEntry(_Strict):
    """How the path changes on its way to the upstream."""

    strip_prefix: Annotated[str, Field(max_length=PATH_CHARACTERS_MAX)] | None = None
    add_prefix: Annotated[str, Field(max_length=PATH_CHARACTERS_MAX)] | None = None

    @field_validator("strip_prefix", "add_prefix")
    @classmethod
    def _prefix_is_normal(cls, prefix: str | None) -> str | None:
        if prefix is None:
            return None
        if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
            raise ValueError(f"{prefix!r} is not `/segment/...` of characters that a path may have")
        return _normal_template(prefix)


class CorsEntry(_Strict):
    """What pages of other origins may do with a route."""

    origins: Annotated[list[str], Field(min_length=1, max_length=100)]
    methods: Annotated[list[str], Field(max_length=32)] = []
    headers: Annotated[list[str], Field(max_length=100)] = ["Authorization", "Content-Type", "X-API-Key"]
    expose_headers: Annotated[list[str], Field(max_length=100)] = []
    credentials: bool = False
    max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = 600

    @field_validator("origins")
    @classmethod
    def _origins_are_written_as_browsers_do(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is neither `*` nor scheme://host[:port] in lower case")
        return _each_once(origins)

    @field_validator("headers", "expose_headers")
    @classmethod
    def _headers_are_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not _FIELD_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header field")
        return names

    @field_validator("methods")
    @classmethod
    def _methods_can_be(cls, methods: list[str]) -> list[str]:
        return _known_methods(methods)

    @model_validator(mode="after")
    def _credentials_need_named_origins(self) -> CorsEntry:
        if self.credentials and ANY_ORIGIN in self.origins:
            raise ValueError("`credentials` need origins by name, not `*`")
        return self


class TimeoutsEntry(_Strict):
    """How long the edge waits for the upstream."""

    connect_ms: Annotated[int, Field(ge=1, le=60_000)] = 2_000
    first_byte_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 60_000
    idle_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 60_000
    total_ms: Annotated[int, Field(ge=1, le=604_800_000)] = 3_600_000


class RouteEntry(_Strict):
    """One route."""

    id: Annotated[str, Field(pattern=_ROUTE_ID)]
    match: MatchEntry
    upstream: str
    rewrite: RewriteEntry = RewriteEntry()
    auth: Literal["key", "none"] = "key"
    scopes: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)] = []
    cost_units: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    limiter_unavailable: Literal["degrade", "open", "closed"] = "degrade"
    timeouts: TimeoutsEntry = TimeoutsEntry()
    body_bytes_max: Annotated[int, Field(ge=0, le=1 << 40)] = 10 << 20
    path_parameters: Literal["refuse", "keep"] = "refuse"
    trailing_slash: Literal["same", "distinct"] = "same"
    cors: CorsEntry | None = None

    @model_validator(mode="after")
    def _scopes_need_keys(self) -> RouteEntry:
        if self.scopes and self.auth == "none":
            raise ValueError("`scopes` need `auth: key`")
        return self


class RoutesFile(_Strict):
    """The whole file."""

    version: Literal[1]
    case: Literal["exact", "insensitive"] | None = None
    upstreams: Annotated[dict[str, UpstreamEntry], Field(min_length=1, max_length=1_000)]
    routes: Annotated[list[RouteEntry], Field(min_length=1, max_length=ROUTES_MAX)]


def read(path: Path, environment: Mapping[str, str] | None = None) -> RouteTable:
    """Read, check and compile a routes file.

    Raises:
        RoutesFileError: It cannot be read, or something in it is wrong.
    """
    return parse(read_text(path), os.environ if environment is None else environment)


def read_text(path: Path) -> str:
    """Return the text of a routes file.

    Raises:
        RoutesFileError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RoutesFileError([f"{path}: {error}"]) from None


def parse(text: str, environment: Mapping[str, str]) -> RouteTable:
    """Check and compile the text of a routes file.

    Raises:
        RoutesFileError: Something in it is wrong. Nothing of it may be used then.
    """
    violations: list[str] = []
    try:
        loaded = document.load(text, violations)
    except document.NotYaml as error:
        raise RoutesFileError([f"file: {error}"]) from None
    loaded = document.interpolate(loaded, environment, _VARIABLE, "", violations)
    checked: RoutesFile | None = None
    try:
        checked = RoutesFile.model_validate(loaded)
    except ValidationError as error:
        violations += [f"{_dotted(each['loc'])}: {_told(each)}" for each in error.errors()]
    if checked is not None:
        violations += _cross_check(checked)
    if violations or checked is None:
        raise RoutesFileError([document.one_line(violation) for violation in violations])
    upstreams = {name: _to_upstream(name, entry) for name, entry in checked.upstreams.items()}
    case = Case.GUARDED if checked.case is None else Case(checked.case)
    return compile_table([_to_route(entry, upstreams[entry.upstream]) for entry in checked.routes], upstreams, case)


def _told(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field"
    return error["msg"].removeprefix("Value error, ")


def _cross_check(checked: RoutesFile) -> list[str]:
    violations = [f"upstreams.{name}: {_NAME_RULE}" for name in checked.upstreams if not _NAME.fullmatch(name)]
    seen: dict[str, int] = {}
    overlaps = Overlaps(folds_case=checked.case == "insensitive")
    for index, route in enumerate(checked.routes):
        if route.upstream not in checked.upstreams:
            violations.append(f"routes[{index}].upstream: no upstream is called {route.upstream!r}")
        if route.id in seen:
            violations.append(f"routes[{index}].id: {route.id!r} is taken by routes[{seen[route.id]}]")
        seen.setdefault(route.id, index)
        strip = route.rewrite.strip_prefix
        if strip and not _starts_with_segments(route.match.path or route.match.path_prefix or "", strip):
            violations.append(f"routes[{index}].rewrite.strip_prefix: the matched path does not start with {strip!r}")
        found = overlaps.add(index, route.match, is_slash_distinct=route.trailing_slash == "distinct")
        violations += [f"routes[{index}].match: {what}" for what in found]
    return violations


def _normal_template(path: str) -> str:
    """Return a path template in the normal form that requests are matched in; parameters in braces stay as they are."""
    return "/".join(segment if segment.startswith("{") else _normal_segment(segment) for segment in path.split("/"))


def _normal_segment(segment: str) -> str:
    try:
        normal = normal_path(b"/" + segment.encode("ascii"))
        is_plain = without_parameters(normal) == normal
    except (NotNormal, UnicodeEncodeError):
        raise ValueError(f"{segment!r} can be read in more than one way, so it has no normal form") from None
    if not is_plain:
        raise ValueError(f"{segment!r} has a `;`, which begins parameters and never belongs to a route's path")
    return normal[1:]


def _known_methods(methods: list[str]) -> list[str]:
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"no request can have the method {method!r}; methods are upper-case")
    return _each_once(methods)


def _each_once(values: list[str]) -> list[str]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands twice")
    return values


def _starts_with_segments(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "file"


def _to_upstream(name: str, entry: UpstreamEntry) -> Upstream:
    return Upstream(
        name=name,
        urls=tuple(entry.urls),
        keep_alive_connections=entry.keep_alive_connections,
        keep_alive_idle_seconds=entry.keep_alive_idle_seconds,
        connections_max=entry.connections_max,
    )


def _to_route(entry: RouteEntry, upstream: Upstream) -> Route:
    is_prefix = entry.match.path_prefix is not None
    return Route(
        id=entry.id,
        hosts=tuple(entry.match.hosts),
        path=(entry.match.path_prefix if is_prefix else entry.match.path) or "/",
        is_prefix=is_prefix,
        methods=frozenset(entry.match.methods),
        upstream=upstream,
        strip_prefix=entry.rewrite.strip_prefix or "",
        add_prefix=entry.rewrite.add_prefix or "",
        needs_key=entry.auth == "key",
        scopes=frozenset(entry.scopes),
        cost_units=entry.cost_units,
        limiter_away=LimiterAway(entry.limiter_unavailable),
        connect_timeout_seconds=entry.timeouts.connect_ms / 1000,
        first_byte_timeout_seconds=entry.timeouts.first_byte_ms / 1000,
        idle_timeout_seconds=entry.timeouts.idle_ms / 1000,
        total_timeout_seconds=entry.timeouts.total_ms / 1000,
        body_bytes_max=entry.body_bytes_max,
        keeps_parameters=entry.path_parameters == "keep",
        is_slash_distinct=entry.trailing_slash == "distinct",
        cors=_to_cors(entry.cors, entry.match.methods) if entry.cors is not None else None,
    )


def _to_cors(entry: CorsEntry, route_methods: list[str]) -> Cors:
    shared = "Access-Control-Allow-Credentials: true\r\n" if entry.credentials else ""
    exposed = ["X-Request-Id", "RateLimit", "RateLimit-Policy", "Retry-After", *entry.expose_headers]
    methods = entry.methods or route_methods or sorted(COMMON_METHODS)
    preflight = (
        f"{shared}Access-Control-Allow-Methods: {', '.join(methods)}\r\n"
        f"Access-Control-Allow-Headers: {', '.join(entry.headers)}\r\n"
        f"Access-Control-Max-Age: {entry.max_age_seconds}\r\n"
    )
    return Cors(
        origins=frozenset(entry.origins),
        actual_lines=f"{shared}Access-Control-Expose-Headers: {', '.join(exposed)}\r\n".encode("ascii"),
        preflight_lines=preflight.encode("ascii"),
    )
