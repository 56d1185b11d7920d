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

from edge_proxy.http1.server.fields import DECISIVE_FIELDS, FORWARDING_PREFIX, HOP_FIELDS, FieldRules
from edge_proxy.http1.server.refusal import Unacceptable
from edge_proxy.http1.target import NotNormal, normal_host, normal_path, without_parameters

HEAD_BYTES_MAX: Final = 32_768
TARGET_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 100

_BAD_QUERY: Final = re.compile(rb"[^\x21-\x7e]|#")
_AMBIGUOUS_PATH: Final = "The path can be read in more than one way."
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_NONE: Final[list[bytes]] = []
_NO_TOKENS: Final[frozenset[bytes]] = frozenset()


@dataclass(slots=True, kw_only=True)
class RequestHead:
    """A request's head as the edge understood it.

    `path` and `host` are in normal form; `plain_path` is the path without its segments' parameters, and `*` stands for
    the server itself. `lines` are the end-to-end fields as they go on. Fields that decide something are kept apart,
    because whether they go on depends on what is decided; `values` has them. `ends_here` tells that nobody further on
    may be asked (RFC 9110 section 7.6.2, or `OPTIONS *`).
    """

    method: str
    path: str
    plain_path: str
    query: bytes
    minor_version: int
    host: str
    lines: list[bytes]
    apart: dict[bytes, list[bytes]]
    traceparent: str | None
    content_length: int | None
    is_chunked: bool
    keep_alive: bool
    expects_continue: bool
    ends_here: bool

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field that is kept apart, by its lower-case name."""
        return self.apart.get(name, _NONE)

    @property
    def has_body(self) -> bool:
        """Tell whether bytes follow the head."""
        return self.is_chunked or bool(self.content_length)


class HeadParser:
    """Turns the bytes of one head into a `RequestHead`.

    Heads are parsed whole and synchronously, so all connections share one. The C parser is a new one for each head,
    which takes half a microsecond: it keeps state behind a message, such as a last one or a body to come.
    """

    def __init__(self, rules: FieldRules | None = None) -> None:
        rules = rules or FieldRules()
        self._decisive = DECISIVE_FIELDS | rules.apart
        self._dropped = HOP_FIELDS | rules.dropped
        self._prefixes = (FORWARDING_PREFIX, *rules.dropped_prefixes)
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
        method = parser.get_method()
        if not raw.startswith(b"%b %b HTTP/" % (method, self._target)):
            # The C parser takes several spaces, and other protocols' names.
            raise Unacceptable(400, "The request line is not `method target HTTP/1.1`.")
        if len(fields) > HEADERS_MAX:
            raise Unacceptable(431, f"At most {HEADERS_MAX} fields.")
        reading = _Reading(self._sort(fields), is_11=version == "1.1")
        return reading.to_head(method.decode("ascii"), self._target)

    def _sort(self, fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, list[bytes]], list[tuple[bytes, bytes]]]:
        """Part the fields into those that decide something here and the lines of those that only go on."""
        found: dict[bytes, list[bytes]] = {}
        kept: list[tuple[bytes, bytes]] = []
        decisive, dropped, prefixes = self._decisive, self._dropped, self._prefixes
        for name, value in fields:
            lower = name.lower()
            if lower in decisive:
                # The C parser leaves white space behind a value, which is not a part of it (RFC 9112 section 5).
                found.setdefault(lower, []).append(value.rstrip(b" \t"))
            elif b"_" in lower:
                raise Unacceptable(400, "Field names with an underscore are refused.")
            elif lower not in dropped and not lower.startswith(prefixes):
                kept.append((lower, b"%b: %b\r\n" % (name, value)))
        return found, kept


class _Reading:
    """The fields of one head, sorted, and what they say."""

    __slots__ = ("_found", "_kept", "is_11")

    def __init__(self, fields: tuple[dict[bytes, list[bytes]], list[tuple[bytes, bytes]]], *, is_11: bool) -> None:
        self._found, self._kept = fields
        self.is_11 = is_11

    def to_head(self, method: str, target: bytes) -> RequestHead:
        found = self._found
        path, query, authority = _split_target(method, target)
        plain_path = _plain(path)
        tokens = self._connection_tokens() if b"connection" in found else _NO_TOKENS
        lines = (
            [line for name, line in self._kept if name not in tokens] if tokens else [line for _, line in self._kept]
        )
        ends_here = path == "*"
        if b"max-forwards" in found:
            ends_here |= self._counts_down(method, lines)
        is_chunked = b"transfer-encoding" in found and self._is_chunked()
        content_length = self._content_length() if b"content-length" in found else None
        if method == "TRACE" and (is_chunked or content_length):
            raise Unacceptable(400, "A TRACE request has no body.")
        return RequestHead(
            method=method,
            path=path,
            plain_path=plain_path,
            query=query,
            minor_version=1 if self.is_11 else 0,
            host=self._host(authority),
            lines=lines,
            apart=found,
            traceparent=self._traceparent() if b"traceparent" in found else None,
            content_length=content_length,
            is_chunked=is_chunked,
            # HTTP/1.0 keep-alive has its own rules and no users that need it: such connections close.
            keep_alive=self.is_11 and b"close" not in tokens,
            expects_continue=b"expect" in found and self._expects_continue(),
            ends_here=ends_here,
        )

    def _counts_down(self, method: str, lines: list[bytes]) -> bool:
        """Pass `Max-Forwards` on, one less; return whether it is used up (RFC 9110 section 7.6.2)."""
        values = self._found[b"max-forwards"]
        if method not in {"TRACE", "OPTIONS"}:
            lines += [b"Max-Forwards: %b\r\n" % value for value in values]
            return False
        if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 9:
            raise Unacceptable(400, "Max-Forwards is not one number.")
        left = int(values[0])
        if left:
            lines.append(b"Max-Forwards: %d\r\n" % (left - 1))
        return not left

    def _connection_tokens(self) -> frozenset[bytes]:
        """Return what `Connection` names: options, and fields that end at this hop."""
        values = self._found[b"connection"]
        return frozenset(token.strip().lower() for value in values for token in value.split(b","))

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
    if method == "CONNECT":
        raise Unacceptable(400, "No tunnels are opened here.")
    if target == b"*" and method == "OPTIONS":
        return "*", b"", None
    if not target.startswith(b"/"):
        authority, target = _absolute_form(target)
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


def _absolute_form(target: bytes) -> tuple[str, bytes]:
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        raise Unacceptable(400, "The target must start with a slash.")
    end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    try:
        authority = normal_host(rest[:end])
    except NotNormal:
        raise Unacceptable(400, "The target's authority is not host[:port].") from None
    target = rest[end:]
    return authority, target if target.startswith(b"/") else b"/" + target
