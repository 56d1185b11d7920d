"""Which of a client's fields never reach an upstream.

An upstream behind the edge may believe what the edge says about a request. `contract.client_fields` lists what says
the same; it is dropped on every route, whatever its `auth`. Addresses and scheme are said in `Forwarded` and
`X-Forwarded-*` (see `http1.server.forwarding` for proxies that are believed).

A key of ours is a secret between the client and the edge: `is_own_key` recognises it, also on routes that need none.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final

from contract.client_fields import ADDRESSES, API_KEY, IDENTITIES, OTHERS, OVERRIDES, PREFIXES
from edge_proxy.http1.server.fields import FieldRules

API_KEY_FIELD: Final = API_KEY

RULES: Final = FieldRules(
    dropped=frozenset((*IDENTITIES, *ADDRESSES, *OVERRIDES, *OTHERS)),
    dropped_prefixes=PREFIXES,
    apart=frozenset((API_KEY_FIELD,)),
)
# What carries credentials, and how it goes on.
CREDENTIALS: Final = ((b"authorization", b"Authorization: %b\r\n"), (API_KEY_FIELD, b"X-Api-Key: %b\r\n"))

# By its shape alone: a key that was mistyped or is unknown here is still almost the key.
_OWN_KEY: Final = re.compile(rb"sk_(?:live|test)_[0-9a-f]{64}", re.IGNORECASE)


def is_own_key(value: bytes) -> bool:
    """Tell whether a field's value holds something that looks like an API key of ours, also as a Basic user name."""
    if _OWN_KEY.search(value) is not None:
        return True
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return False
    try:
        return _OWN_KEY.search(b64decode(encoded.rstrip(b"= ") + b"==")) is not None
    except ValueError:
        return False
