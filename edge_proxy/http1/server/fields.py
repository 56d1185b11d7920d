"""Which fields of a request end at this hop, beside those of HTTP itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Fields that end at this hop (RFC 9110 section 7.6.1), or that say where a request came from, which is said anew.
HOP_FIELDS: Final = frozenset(
    {
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
    }
)
FORWARDING_PREFIX: Final = b"x-forwarded-"
# Fields that decide something at this hop. They are kept apart and go on, if at all, as they are written anew.
DECISIVE_FIELDS: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"authorization",
        b"expect",
        b"traceparent",
        b"via",
        b"max-forwards",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRules:
    """What whoever runs the server says about fields, by lower-case name.

    Args:
        dropped: Never reach the handler.
        dropped_prefixes: Nor does anything that begins like this.
        apart: Are kept apart from those that go on.
    """

    dropped: frozenset[bytes] = frozenset()
    dropped_prefixes: tuple[bytes, ...] = ()
    apart: frozenset[bytes] = frozenset()
