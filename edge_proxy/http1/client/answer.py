"""What an upstream sent, read strictly: the head, how the body is framed, and the chunked coding.

The C parser (llhttp) reads the bytes of one head and nothing else; where the body ends is decided here (RFC 9112
section 6.3), so that no callback of the parser can reach into a second message. Whatever two readers could understand
differently is `MalformedAnswer`: a proxy that guesses passes the guess on to its client.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import httptools

HEADERS_MAX: Final = 200
HEAD_BYTES_MAX: Final = 65_536
CHUNK_LINE_BYTES_MAX: Final = 4_096
TRAILER_BYTES_MAX: Final = 16_384
STATUS_MIN: Final = 100
STATUS_MAX: Final = 599
INTERIM_MAX: Final = 199
SWITCHING_PROTOCOLS: Final = 101
CONTENT_LENGTH_DIGITS_MAX: Final = 15
# Answers that have no body, whatever their fields say (RFC 9110 sections 15.3.5 and 15.4.5).
BODILESS_STATUS: Final = frozenset({204, 304})

# The fields that frame the body or end the connection, by the lengths of their names.
_DECISIVE_LENGTHS: Final = frozenset(map(len, (b"connection", b"content-length", b"transfer-encoding")))

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class MalformedAnswer(Exception):
    """The bytes are not one HTTP/1.1 answer that everybody reads alike."""


class Framing(Enum):
    """Where a body ends."""

    NONE = "none"
    COUNTED = "counted"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


class AnswerHead:
    """The head of one answer, interim answers included.

    `content_length` is what the field says, also where there is no body to go with it (HEAD).

    Args:
        raw: The bytes up to and including the empty line.
        is_head_request: Whether the request's method was HEAD.

    Raises:
        MalformedAnswer: It cannot be read, or in more than one way.
    """

    __slots__ = ("content_length", "fields", "framing", "is_interim", "is_reusable", "status")

    def __init__(self, raw: bytes, *, is_head_request: bool) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            raise MalformedAnswer("switched protocols without being asked") from None
        except httptools.HttpParserError as error:
            raise MalformedAnswer(f"not HTTP: {error}") from None
        is_11 = raw.startswith(b"HTTP/1.1 ")
        if not is_11 and not raw.startswith(b"HTTP/1.0 "):
            raise MalformedAnswer("neither HTTP/1.1 nor HTTP/1.0")
        status = self.status = parser.get_status_code()
        if not STATUS_MIN <= status <= STATUS_MAX:
            raise MalformedAnswer(f"{status} is no status")
        if status == SWITCHING_PROTOCOLS:
            raise MalformedAnswer("switched protocols without being asked")
        self.content_length: int | None = None
        self.is_reusable = is_11
        # Another head follows.
        self.is_interim = status <= INTERIM_MAX
        is_chunked = self._sort_fields(is_11)
        if is_head_request or self.is_interim or status in BODILESS_STATUS:
            self.framing = Framing.NONE
        elif is_chunked:
            self.framing = Framing.CHUNKED
        elif self.content_length is not None:
            self.framing = Framing.COUNTED
        else:
            self.framing = Framing.UNTIL_CLOSE
            self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; called by the C parser."""
        self.fields.append((name, value))

    def _sort_fields(self, is_11: bool) -> bool:
        """Read the fields that frame the body or end the connection; tell whether the body is chunked."""
        if len(self.fields) > HEADERS_MAX:
            raise MalformedAnswer(f"more than {HEADERS_MAX} fields")
        codings: list[bytes] | None = None
        for name, value in self.fields:
            # Lengths first: most fields are none of these, and lower-casing each of them costs more than all the rest.
            if len(name) not in _DECISIVE_LENGTHS:
                continue
            lower = name.lower()
            if lower == b"content-length":
                self._take_length(value)
            elif lower == b"transfer-encoding":
                codings = [value] if codings is None else [*codings, value]
            elif lower == b"connection" and value != b"keep-alive":
                self._take_connection(value)
        if codings is None:
            return False
        _check_codings(codings, is_11=is_11, has_length=self.content_length is not None)
        return True

    def _take_length(self, value: bytes) -> None:
        """Take the one length. A list of equal values may be refused (RFC 9110 section 8.6), and is."""
        if self.content_length is not None or not value.isdigit() or len(value) > CONTENT_LENGTH_DIGITS_MAX:
            raise MalformedAnswer("Content-Length is not one number")
        self.content_length = int(value)

    def _take_connection(self, value: bytes) -> None:
        if b"close" in {token.strip().lower() for token in value.split(b",")}:
            self.is_reusable = False


def _check_codings(values: list[bytes], *, is_11: bool, has_length: bool) -> None:
    """Check that the coding is `chunked` alone: no other was asked for, since the edge sends no `TE`."""
    if has_length:
        raise MalformedAnswer("Transfer-Encoding and Content-Length")
    if not is_11:
        raise MalformedAnswer("Transfer-Encoding in HTTP/1.0")
    if len(values) > 1 or values[0].strip().lower() != b"chunked":
        raise MalformedAnswer("a transfer coding that nobody asked for")


class ChunkedBody:
    """Undoes the chunked coding (RFC 9112 section 7.1); looks at each byte once.

    Trailers are bounded, checked and dropped: a trailer never becomes a field of the head.
    """

    __slots__ = ("_in_trailer", "_left", "_line", "_needs_line_end", "_trailer_bytes", "is_complete", "size")

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._needs_line_end = False
        self._in_trailer = False
        self._trailer_bytes = 0
        # Bytes of the body so far.
        self.size = 0
        self.is_complete = False

    def feed(self, data: bytes, pieces: list[bytes]) -> int:
        """Append the body's bytes to `pieces`; return how many bytes of `data` belong to this body.

        Raises:
            MalformedAnswer: The coding is broken.
        """
        at, size = 0, len(data)
        while at < size and not self.is_complete:
            if not (self._left or self._line or self._needs_line_end or self._in_trailer):
                at = self._take_whole_chunks(data, at, pieces)
                if self.is_complete or at == size:
                    return at
            if self._left:
                end = min(at + self._left, size)
                pieces.append(data[at:end] if at or end < size else data)
                self._left -= end - at
                self.size += end - at
                self._needs_line_end = self._left == 0
            else:
                end = data.find(b"\n", at) + 1
                if not end:
                    self._line += data[at:]
                    self._check_length(len(self._line))
                    return size
                line, self._line = self._line + data[at:end], b""
                self._check_length(len(line))
                if not line.endswith(b"\r\n"):
                    raise MalformedAnswer("a chunk's line does not end with CR and LF")
                self._take_line(line[:-2])
            at = end
        return at

    def _take_whole_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take chunks that are there whole and plain; return where the slow way must look at what follows."""
        while (found := _PLAIN_CHUNK_LINE.match(data, at)) is not None:
            start = found.end()
            end = start + int(found[1], 16)
            if not data.startswith(b"\r\n", end):
                break
            at = end + 2
            if end == start:
                self.is_complete = True
                break
            pieces.append(data[start:end])
            self.size += end - start
        return at

    def _check_length(self, size: int) -> None:
        if self._in_trailer:
            if self._trailer_bytes + size > TRAILER_BYTES_MAX:
                raise MalformedAnswer("the trailers are too large")
        elif size > CHUNK_LINE_BYTES_MAX:
            raise MalformedAnswer("a chunk's line is too long")

    def _take_line(self, line: bytes) -> None:
        if self._needs_line_end:
            if line:
                raise MalformedAnswer("a chunk is longer than it said")
            self._needs_line_end = False
        elif self._in_trailer:
            self._trailer_bytes += len(line) + 2
            if not line:
                self.is_complete = True
            elif not _TRAILER_LINE.fullmatch(line):
                raise MalformedAnswer("a trailer is not a field")
        else:
            found = _CHUNK_LINE.fullmatch(line)
            if found is None:
                raise MalformedAnswer("a chunk's size is not a hexadecimal number")
            self._left = int(found[1], 16)
            self._in_trailer = self._left == 0
