"""A request's head, read once and refused where two readers could disagree about it (RFC 9112, RFC 9110).

The C parser (llhttp) refuses bare CR and LF, obsolete folding, `Content-Length` next to `Transfer-Encoding`, two
`Content-Length`, an empty `Transfer-Encoding` and white space before a colon. What it lets through and upstreams are
known to read differently is refused here: underscores in names, codings other than `chunked`, `Host` that is missing,
doubled or not an authority, and targets with encoded slashes, dots, backslashes or NUL, `//` and dot segments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

from edge_proxy import problems
from edge_proxy.problems import Refused

HEAD_BYTES_MAX: Final = 32_768
TARGET_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 100

# RFC 3986 section 3.2, without userinfo; IPv6 in brackets.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9\-._]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_AMBIGUOUS_PATH: Final = re.compile(
    rb"%(?:2[EeFf]|5[Cc]|00|25(?:2[EeFf]|5[Cc]|00))|%(?![0-9A-Fa-f]{2})|//|\\|/\.{1,2}(?:[/;]|$)|[^\x21-\x7e]|[#\"<>^`{|}]"
)
_BAD_QUERY: Final = re.compile(rb"[^\x21-\x7e]|#")
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
        b"content-length",
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
_NOT_NOMINATED: Final = frozenset({b"close", b"keep-alive", b""})


@dataclass(slots=True, kw_only=True)
class RequestHead:
    """A request's head as the edge understood it.

    `lines` are the end-to-end fields as they go on to the upstream. Credentials are kept apart, because whether they
    go on depends on the route.
    """

    method: str
    path: str
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
    """Turns the bytes of one head into a `RequestHead`. One per connection; not for concurrent use."""

    def __init__(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, target: bytes) -> None:
        """Take the request's target; called by the C parser."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; called by the C parser."""
        self._fields.append((name, value))

    def parse(self, raw: bytes) -> RequestHead:
        """Read a complete head, its empty line included.

        Raises:
            Refused: It is malformed or ambiguous; the connection cannot be used any further.
        """
        self._target = b""
        fields: list[tuple[bytes, bytes]] = []
        self._fields = fields
        parser = self._parser
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            # Offers to upgrade may be ignored (RFC 9110 section 7.8), and framing is ours anyway.
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserInvalidMethodError:
            raise Refused(problems.NOT_IMPLEMENTED, "The method is not known.", close=True) from None
        except httptools.HttpParserError as error:
            raise Refused(problems.BAD_REQUEST, f"{error}.", close=True) from None
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise Refused(problems.VERSION_NOT_SUPPORTED, close=True)
        if len(fields) > HEADERS_MAX:
            raise Refused(problems.HEAD_TOO_LARGE, f"At most {HEADERS_MAX} fields.", close=True)
        reading = _Reading(is_11=version == "1.1")
        reading.read(fields)
        head = reading.to_head(parser.get_method().decode("ascii"), self._target)
        if head.has_body:
            # This parser now waits for a body that it will never be shown.
            self._parser = httptools.HttpRequestParser(self)
        return head


class _Reading:
    """The fields of one head while they are being sorted."""

    __slots__ = (
        "api_keys",
        "authorizations",
        "codings",
        "connection",
        "expectations",
        "hosts",
        "is_11",
        "kept",
        "lengths",
        "traceparents",
        "via",
    )

    def __init__(self, *, is_11: bool) -> None:
        self.is_11 = is_11
        self.kept: list[tuple[bytes, bytes]] = []
        self.hosts: list[bytes] = []
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.connection: list[bytes] = []
        self.authorizations: list[bytes] = []
        self.api_keys: list[bytes] = []
        self.expectations: list[bytes] = []
        self.traceparents: list[bytes] = []
        self.via: list[bytes] = []

    def read(self, fields: list[tuple[bytes, bytes]]) -> None:
        kept = self.kept
        for name, value in fields:
            lower = name.lower()
            collector = _COLLECTORS.get(lower)
            if collector is not None:
                collector(self).append(value)
                if lower == b"content-length":
                    continue
            elif b"_" in lower:
                raise Refused(problems.BAD_REQUEST, "Field names with an underscore are refused.", close=True)
            elif lower not in _DROPPED and not lower.startswith(_INTERNAL_PREFIX):
                kept.append((lower, b"%b: %b\r\n" % (name, value)))

    def to_head(self, method: str, target: bytes) -> RequestHead:
        path, query, authority = _split_target(method, target)
        host = self._host(authority)
        lines = self._lines()
        is_chunked = self._is_chunked()
        traceparents = self.traceparents
        valid_trace = len(traceparents) == 1 and _TRACEPARENT.fullmatch(traceparents[0]) is not None
        return RequestHead(
            method=method,
            path=path,
            query=query,
            minor_version=1 if self.is_11 else 0,
            host=host,
            lines=lines,
            authorizations=self.authorizations,
            api_keys=self.api_keys,
            traceparent=traceparents[0].decode("ascii") if valid_trace else None,
            via=self.via,
            content_length=self._content_length(),
            is_chunked=is_chunked,
            keep_alive=self._keeps_alive(),
            expects_continue=self._expects_continue(),
        )

    def _host(self, authority: bytes | None) -> str:
        hosts = self.hosts
        if len(hosts) > 1 or (not hosts and self.is_11):
            raise Refused(problems.BAD_REQUEST, "There must be exactly one Host field.", close=True)
        if not hosts:
            return (authority or b"").decode("ascii").lower()
        host = hosts[0]
        if not _HOST.fullmatch(host):
            raise Refused(problems.BAD_REQUEST, "The Host field is not host[:port].", close=True)
        if authority is not None and authority.lower() != host.lower():
            raise Refused(problems.BAD_REQUEST, "Host and target name different hosts.", close=True)
        return host.decode("ascii").lower()

    def _lines(self) -> list[bytes]:
        if not self.connection:
            return [line for _, line in self.kept]
        nominated = {token.strip().lower() for value in self.connection for token in value.split(b",")} - _NOT_NOMINATED
        if not nominated:
            return [line for _, line in self.kept]
        return [line for name, line in self.kept if name not in nominated]

    def _is_chunked(self) -> bool:
        if not self.codings:
            return False
        if not self.is_11 or self.lengths or len(self.codings) > 1:
            raise Refused(problems.BAD_REQUEST, "The body is framed in more than one way.", close=True)
        coding = self.codings[0].lower()
        if coding != b"chunked":
            raise Refused(problems.NOT_IMPLEMENTED, "The only transfer coding is chunked.", close=True)
        return True

    def _content_length(self) -> int | None:
        if not self.lengths:
            return None
        value = self.lengths[0]
        if len(self.lengths) > 1 or not value.isdigit() or len(value) > 15:
            raise Refused(problems.BAD_REQUEST, "Content-Length is not one number.", close=True)
        return int(value)

    def _keeps_alive(self) -> bool:
        if not self.connection:
            return self.is_11
        tokens = {token.strip().lower() for value in self.connection for token in value.split(b",")}
        return b"close" not in tokens and (self.is_11 or b"keep-alive" in tokens)

    def _expects_continue(self) -> bool:
        if not self.expectations:
            return False
        if len(self.expectations) > 1 or self.expectations[0].lower() != b"100-continue":
            raise Refused(problems.EXPECTATION_FAILED, close=True)
        return self.is_11


_COLLECTORS: Final[dict[bytes, Callable[[_Reading], list[bytes]]]] = {
    b"host": lambda reading: reading.hosts,
    b"content-length": lambda reading: reading.lengths,
    b"transfer-encoding": lambda reading: reading.codings,
    b"connection": lambda reading: reading.connection,
    b"authorization": lambda reading: reading.authorizations,
    b"x-api-key": lambda reading: reading.api_keys,
    b"expect": lambda reading: reading.expectations,
    b"traceparent": lambda reading: reading.traceparents,
    b"via": lambda reading: reading.via,
}


def _split_target(method: str, target: bytes) -> tuple[str, bytes, bytes | None]:
    """Return path, query with its `?`, and the authority of an absolute-form target (RFC 9112 section 3.2)."""
    if len(target) > TARGET_BYTES_MAX:
        raise Refused(problems.TARGET_TOO_LONG, close=True)
    authority = None
    if not target.startswith(b"/"):
        authority, target = _absolute_form(method, target)
    path, question, query = target.partition(b"?")
    if _AMBIGUOUS_PATH.search(path):
        raise Refused(problems.BAD_REQUEST, "The path can be read in more than one way.", close=True)
    if query and _BAD_QUERY.search(query):
        raise Refused(problems.BAD_REQUEST, "The query has characters that must be encoded.", close=True)
    return path.decode("ascii"), question + query, authority


def _absolute_form(method: str, target: bytes) -> tuple[bytes, bytes]:
    scheme, separator, rest = target.partition(b"://")
    if method == "CONNECT" or not separator or scheme.lower() not in {b"http", b"https"}:
        raise Refused(problems.BAD_REQUEST, "The target must start with a slash.", close=True)
    end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    authority, target = rest[:end], rest[end:]
    if not _HOST.fullmatch(authority):
        raise Refused(problems.BAD_REQUEST, "The target's authority is not host[:port].", close=True)
    return authority, target if target.startswith(b"/") else b"/" + target
