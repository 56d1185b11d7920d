"""Which scopes of API keys mean something to Tollway itself, and who may give them.

A scope is a word that a key carries and a route asks for. Most words are the customer's own: what they open is the
customer's API, so whoever may create keys gives them freely. A few open something of Tollway's. Those are reserved:
they stand in this catalogue with the permission that a person or service account needs to put them on a key. A word
that begins with `tollway:` and does not stand here is kept for later and given by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from tollway.options.v1 import access_pb2

EVENTS_WRITE: Final = "events:write"
"""Send usage events to the edge's `POST /v1/events`."""
KEPT_PREFIX: Final = "tollway:"

RESERVED: Final[Mapping[str, access_pb2.Permission.ValueType]] = MappingProxyType(
    {EVENTS_WRITE: access_pb2.PERMISSION_EVENTS_WRITE}
)


def is_reserved(scope: str) -> bool:
    """Tell whether a scope opens something of Tollway's, or is kept for that."""
    return scope in RESERVED or scope.startswith(KEPT_PREFIX)


def reserved(scopes: Iterable[str]) -> list[str]:
    """Return those scopes that are not the customer's own, in their order."""
    return [scope for scope in scopes if is_reserved(scope)]
