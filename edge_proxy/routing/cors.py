"""What a route lets pages of other origins do (Fetch standard, section 3.3), as header lines made once.

The edge answers preflights of such a route by itself: they carry no key and are not billed. Every answer of the route
carries the lines, the edge's own refusals as well, because without them a page
cannot read even the status of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ANY_ORIGIN: Final = "*"
VARY: Final = b"Vary: Origin\r\n"
_ORIGIN: Final = b"origin:"
_REQUESTED_METHOD: Final = b"access-control-request-method:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """One route's rules.

    Args:
        origins: Origins as browsers write them, or `*`.
        actual_lines: Further lines of answers to allowed origins.
        preflight_lines: Further lines of answers to their preflights.
    """

    origins: frozenset[str]
    actual_lines: bytes
    preflight_lines: bytes

    def lines(self, origin: str | None, *, is_preflight: bool) -> bytes:
        """Return the header lines of an answer to a request with this `Origin`."""
        if ANY_ORIGIN in self.origins:
            return b"Access-Control-Allow-Origin: *\r\n" + self._further(is_preflight=is_preflight)
        if origin is None or origin not in self.origins:
            return VARY
        allowed = f"Access-Control-Allow-Origin: {origin}\r\n".encode("ascii")
        return allowed + VARY + self._further(is_preflight=is_preflight)

    def _further(self, *, is_preflight: bool) -> bytes:
        return self.preflight_lines if is_preflight else self.actual_lines


def origin_of(lines: list[bytes]) -> str | None:
    """Return the one `Origin` among a request's field lines."""
    return _value(lines, _ORIGIN)


def requested_method(lines: list[bytes]) -> str | None:
    """Return the method that a preflight asks about, or None where the request is not a preflight."""
    return _value(lines, _REQUESTED_METHOD) if _value(lines, _ORIGIN) else None


def _value(lines: list[bytes], name: bytes) -> str | None:
    size = len(name)
    values = [line[size:].strip() for line in lines if line[:size].lower() == name]
    if len(values) != 1 or not values[0].isascii():
        return None
    return values[0].decode("ascii")
