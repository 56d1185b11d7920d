"""One normal form for paths and hosts, so that a resource has one name at the edge however it is spelled.

Upstreams read a path loosely: they decode escapes, merge slashes, resolve dots, drop `;` parameters, fold letter case.
Two spellings that an upstream serves alike must not match two routes with different scopes and prices. So a request's
path is brought into one form, that form is matched, and exactly that form is forwarded:

- An escape of a character that a segment may contain as it is (RFC 3986 section 3.3: unreserved, sub-delims but `;`,
  `:` and `@`) is decoded; the hexadecimal digits of every other escape become upper case (section 6.2.2).
- What upstreams are known to read in different ways is refused: an escaped slash, backslash or control character, the
  same escaped twice, an escape that is none or that UTF-8 never contains, `//`, dot segments, characters that must be
  escaped. (A line feed at the end: the `$` of many regular expressions, nginx's locations included, stands before it.)
- A `;`, escaped or not, begins a segment's parameters. `without_parameters` names the resource that an upstream serves
  which drops them.

Normal forms are fixed points: `normal_path(normal_path(x))` is `normal_path(x)`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

DEFAULT_PORT: Final = 80
PORT_MAX: Final = 65_535
# A name of 253 characters, its trailing dot, and a port.
HOST_BYTES_MAX: Final = 260
# Nearly all requests name one of a few hosts.
HOSTS_KEPT_MAX: Final = 1_024

# RFC 3986 section 3.2, without userinfo; IPv6 in brackets.
_HOST: Final = re.compile(rb"([A-Za-z0-9](?:[A-Za-z0-9\-._]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(\.)?(?::([0-9]{1,5}))?")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DECODED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,=:@")
_AMBIGUOUS: Final = re.compile(
    # Escaped slash, backslash, control characters, once or twice; a dot or a `;` twice.
    rb"%(?:2F|5C|[01][0-9A-F]|7F|25(?:2[EeFf]|5[Cc]|[01][0-9A-Fa-f]|7[Ff]|3[Bb]))"
    # Bytes that UTF-8 never contains: some decoders make dots and slashes of them.
    rb"|%(?:C[01]|F[5-9A-F])"
    rb"|//|\\"
    # A dot segment, also one with parameters.
    rb"|/\.{1,2}(?:[/;]|%3B|$)"
    rb"|[^\x21-\x7e]|[#\"<>^`{|}]"
)
_BEYOND_ASCII: Final = re.compile(r"(?:%[89a-f][0-9a-f])+")
_PARAMETERS: Final = re.compile(r"(?:;|%3B)[^/]*")


class NotNormal(ValueError):
    """The path or host can be read in more than one way, or not at all."""


def normal_path(raw: bytes) -> str:
    """Return the normal form of a path, its parameters included.

    Raises:
        NotNormal: There is none.
    """
    if b"%" in raw:
        # Looked for first: decoding could complete it (`%a%39` must not become `%a9`).
        if _BAD_ESCAPE.search(raw):
            raise NotNormal
        raw = _ESCAPE.sub(_normal_escape, raw)
    if _AMBIGUOUS.search(raw):
        raise NotNormal
    return raw.decode("ascii")


def without_parameters(path: str) -> str:
    """Return a normal path without its segments' parameters.

    Raises:
        NotNormal: A segment consists of parameters only, so that some see an empty segment there.
    """
    if ";" not in path and "%3B" not in path:
        return path
    path = _PARAMETERS.sub("", path)
    if "//" in path:
        raise NotNormal
    return path


def folded(path: str) -> str:
    """Return a name that is equal for normal paths which differ in letter case only. It is not a path.

    Letters beyond ASCII are folded as well, but never onto an ASCII letter: upstreams agree on that.
    """
    name = path.lower()
    return _BEYOND_ASCII.sub(_folded_letters, name) if "%" in name else name


def normal_host(raw: bytes) -> str:
    """Return `host[:port]` in lower case, without one trailing dot and without the default port.

    Raises:
        NotNormal: It is not `host[:port]`.
    """
    if len(raw) > HOST_BYTES_MAX:
        raise NotNormal
    return _normal_host(raw)


@lru_cache(HOSTS_KEPT_MAX)
def _normal_host(raw: bytes) -> str:
    found = _HOST.fullmatch(raw)
    if found is None or (found[2] and raw.startswith(b"[")):
        raise NotNormal
    name = found[1].decode("ascii").lower()
    if found[3] is None:
        return name
    port = int(found[3])
    if not 0 < port <= PORT_MAX:
        raise NotNormal
    return name if port == DEFAULT_PORT else f"{name}:{port}"


def _normal_escape(found: re.Match[bytes]) -> bytes:
    code = int(found[1], 16)
    return bytes((code,)) if code in _DECODED else found[0].upper()


def _folded_letters(found: re.Match[str]) -> str:
    text = unquote_to_bytes(found[0]).decode("utf-8", "surrogateescape")
    return "".join(letter if letter.lower().isascii() else letter.lower() for letter in text)
