"""A request's head, read once and refused where two readers could disagree about it (RFC 9112, RFC 9110).

The C parser (llhttp) refuses bare CR and LF, obsolete folding, `Content-Length` next to `Transfer-Encoding`, two
`Content-Length`, an empty `Transfer-Encoding` and white space before a colon. What it lets through and upstreams are
known to read differently is refused here: underscores in names, codings other than `chunked`, `Host` that is missing,
doubled or not an authority, and targets that have no normal form (`http1.target`). Path and host are kept in that form
and in no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httptools

from edge_proxy.http1.server.refusal import Unacceptable
from edge_proxy.http1.target import NotNormal, normal_host, normal_path, without_parameters

HEAD_BYTES_MAX: Final = 32_768
TARGET_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 100

_BAD_QUERY: Final = re.compile(rb"[^\x21-\x7e]|#")
_AMBIGUOUS_PATH: Final = "The path can be read in more than one way."
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# Fields that end at this hop (RFC 9110 section 7.6.1), that only the edge may say, or that it says anew.
_DROPPED: Final = frozenset(
    {
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-server",
        b"x-real-ip",
        b"x-request-id",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
_INTERNAL_PREFIX: Final = b"x-tollway-"
# Fields that decide something at this hop. They are kept apart and go on, if at all, as the edge writes them.
_DECISIVE: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"authorization",
        b"x-api-key",
        b"expect",
        b"traceparent",
        b"via",
    }
)
_NONE: Final[list[bytes]] = []
_NO_TOKENS: Final[frozenset[bytes]] = frozenset()


@dataclass(slots=True, kw_only=True)
class RequestHead:
    """A request's head as the edge understood it.

    `path` and `host` are in normal form; `plain_path` is the path without its segments' parameters. `lines` are the
    end-to-end fields as they go on to the upstream. Credentials are kept apart, because whether they go on depends on
    the route.
    """

    method: str
    path: str
    plain_path: str
    query: bytes
    minor_version: int
    host: str
    lines: list[bytes]
    authorizations: list[bytes]
    api_keys: list[bytes]
    traceparent: str | None
    via: list[bytes]
    content_length: int | None
    is_chunked: bool
    keep_alive: bool
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Tell whether bytes follow the head."""
        return self.is_chunked or bool(self.content_length)


class HeadParser:
    """Turns the bytes of one head into a `RequestHead`.

    Heads are parsed whole and synchronously, so all connections share one. The C parser is a new one for each head,
    which takes half a microsecond: it keeps state behind a message, such as a last one or a body to come.
    """

    def __init__(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        """Take the request's target; called by the C parser."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; called by the C parser."""
        self._fields.append((name, value))

    def parse(self, raw: bytes) -> RequestHead:
        """Read a complete head, its empty line included.

        Raises:
            Unacceptable: It is malformed or ambiguous; the connection cannot be used any further.
        """
        self._target = b""
        fields: list[tuple[bytes, bytes]] = []
        self._fields = fields
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            # Offers to upgrade may be ignored (RFC 9110 section 7.8).
            pass
        except httptools.HttpParserInvalidMethodError:
            raise Unacceptable(501, "The method is not known.") from None
        except httptools.HttpParserError as error:
            raise Unacceptable(400, f"{error}.") from None
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise Unacceptable(505)
        if len(fields) > HEADERS_MAX:
            raise Unacceptable(431, f"At most {HEADERS_MAX} fields.")
        return _Reading(fields, is_11=version == "1.1").to_head(parser.get_method().decode("ascii"), self._target)


class _Reading:
    """The fields of one head, sorted into those that decide something here and those that only go on."""

    __slots__ = ("_found", "is_11", "kept")

    def __init__(self, fields: list[tuple[bytes, bytes]], *, is_11: bool) -> None:
        self.is_11 = is_11
        self.kept: list[tuple[bytes, bytes]] = []
        self._found: dict[bytes, list[bytes]] = {}
        found, kept = self._found, self.kept
        for name, value in fields:
            lower = name.lower()
            if lower in _DECISIVE:
                found.setdefault(lower, []).append(value)
            elif b"_" in lower:
                raise Unacceptable(400, "Field names with an underscore are refused.")
            elif lower not in _DROPPED and not lower.startswith(_INTERNAL_PREFIX):
                kept.append((lower, b"%b: %b\r\n" % (name, value)))

    def to_head(self, method: str, target: bytes) -> RequestHead:
        found = self._found
        path, query, authority = _split_target(method, target)
        plain_path = _plain(path)
        tokens = self._connection_tokens()
        return RequestHead(
            method=method,
            path=path,
            plain_path=plain_path,
            query=query,
            minor_version=1 if self.is_11 else 0,
            host=self._host(authority),
            lines=[line for name, line in self.kept if name not in tokens]
            if tokens
            else [line for _, line in self.kept],
            authorizations=found.get(b"authorization", _NONE),
            api_keys=found.get(b"x-api-key", _NONE),
            traceparent=self._traceparent() if b"traceparent" in found else None,
            via=found.get(b"via", _NONE),
            content_length=self._content_length() if b"content-length" in found else None,
            is_chunked=b"transfer-encoding" in found and self._is_chunked(),
            # HTTP/1.0 keep-alive has its own rules and no users that need it: such connections close.
            keep_alive=self.is_11 and b"close" not in tokens,
            expects_continue=b"expect" in found and self._expects_continue(),
        )

    def _connection_tokens(self) -> set[bytes] | frozenset[bytes]:
        """Return what `Connection` names: options, and fields that end at this hop."""
        values = self._found.get(b"connection")
        if values is None:
            return _NO_TOKENS
        return {token.strip().lower() for value in values for token in value.split(b",")}

    def _host(self, authority: str | None) -> str:
        hosts = self._found.get(b"host", _NONE)
        if len(hosts) > 1 or (not hosts and self.is_11):
            raise Unacceptable(400, "There must be exactly one Host field.")
        if not hosts:
            return authority or ""
        try:
            host = normal_host(hosts[0])
        except NotNormal:
            raise Unacceptable(400, "The Host field is not host[:port].") from None
        if authority is not None and authority != host:
            raise Unacceptable(400, "Host and target name different hosts.")
        return host

    def _traceparent(self) -> str | None:
        values = self._found[b"traceparent"]
        if len(values) != 1 or not _TRACEPARENT.fullmatch(values[0]):
            return None
        return values[0].decode("ascii")

    def _is_chunked(self) -> bool:
        codings = self._found[b"transfer-encoding"]
        if not self.is_11 or b"content-length" in self._found or len(codings) > 1:
            raise Unacceptable(400, "The body is framed in more than one way.")
        if codings[0].lower() != b"chunked":
            raise Unacceptable(501, "The only transfer coding is chunked.")
        return True

    def _content_length(self) -> int:
        values = self._found[b"content-length"]
        if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 15:
            raise Unacceptable(400, "Content-Length is not one number.")
        return int(values[0])

    def _expects_continue(self) -> bool:
        values = self._found[b"expect"]
        if len(values) > 1 or values[0].lower() != b"100-continue":
            raise Unacceptable(417)
        return self.is_11


def _split_target(method: str, target: bytes) -> tuple[str, bytes, str | None]:
    """Return path, query with its `?`, and the authority of an absolute-form target (RFC 9112 section 3.2)."""
    if len(target) > TARGET_BYTES_MAX:
        raise Unacceptable(414)
    authority = None
    if not target.startswith(b"/"):
        authority, target = _absolute_form(method, target)
    path, question, query = target.partition(b"?")
    if query and _BAD_QUERY.search(query):
        raise Unacceptable(400, "The query has characters that must be encoded.")
    try:
        return normal_path(path), question + query, authority
    except NotNormal:
        raise Unacceptable(400, _AMBIGUOUS_PATH) from None


def _plain(path: str) -> str:
    try:
        return without_parameters(path)
    except NotNormal:
        raise Unacceptable(400, _AMBIGUOUS_PATH) from None


def _absolute_form(method: str, target: bytes) -> tuple[str, bytes]:
    scheme, separator, rest = target.partition(b"://")
    if method == "CONNECT" or not separator or scheme.lower() not in {b"http", b"https"}:
        raise Unacceptable(400, "The target must start with a slash.")
    end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    try:
        authority = normal_host(rest[:end])
    except NotNormal:
        raise Unacceptable(400, "The target's authority is not host[:port].") from None
    target = rest[end:]
    return authority, target if target.startswith(b"/") else b"/" + target
