"""Which of a client's fields never reach an upstream.

An upstream behind the edge may believe what the edge says about a request. So whatever says the same must come from the
edge and from nobody else. Four kinds of fields are dropped on every route, whatever its `auth`:

- who calls: the edge says it in `X-Tollway-*`, and other gateways and identity proxies in names of their own;
- from where, and in which scheme: what load balancers and content networks write down; the edge says it in `Forwarded`
  and `X-Forwarded-*` (see `http1.server.forwarding` for proxies that are believed);
- what is asked for: another path or another method than those that were matched, authorized and priced;
- `Proxy`, which CGI programs mistake for the address of their outgoing proxy ("httpoxy", CVE-2016-5385).

A key of ours is a secret between the client and the edge: `is_own_key` recognises it, also on routes that need none.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final

from edge_proxy.http1.server.fields import FieldRules

API_KEY_FIELD: Final = b"x-api-key"

_IDENTITIES: Final = (
    b"x-organization-id",
    b"x-organisation-id",
    b"x-organization",
    b"x-org-id",
    b"x-tenant-id",
    b"x-tenant",
    b"x-account-id",
    b"x-user-id",
    b"x-user",
    b"x-username",
    b"x-user-email",
    b"x-user-roles",
    b"x-user-groups",
    b"x-remote-user",
    b"remote-user",
    b"remote-groups",
    b"remote-name",
    b"remote-email",
    b"x-subject",
    b"x-api-key-id",
    b"x-credential-identifier",
    b"x-client-cert",
    b"x-client-dn",
    b"x-anonymous-consumer",
)
_ADDRESSES: Final = (
    b"x-real-ip",
    b"true-client-ip",
    b"x-true-client-ip",
    b"client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-originating-ip",
    b"x-remote-ip",
    b"x-remote-addr",
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"cf-pseudo-ipv4",
    b"fastly-client-ip",
    b"fly-client-ip",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-appengine-user-ip",
    b"x-appengine-remote-addr",
    b"wl-proxy-client-ip",
    b"proxy-client-ip",
    b"x-proxyuser-ip",
    b"x-scheme",
    b"x-url-scheme",
    b"front-end-https",
)
_OVERRIDES: Final = (
    b"x-http-method-override",
    b"x-http-method",
    b"x-method-override",
    b"x-original-url",
    b"x-original-uri",
    b"x-original-method",
    b"x-original-host",
    b"x-rewrite-url",
    b"x-override-url",
    b"x-host",
)
_OTHERS: Final = (b"proxy", b"x-request-id")
_PREFIXES: Final = (
    b"x-tollway-",
    b"x-consumer-",
    b"x-authenticated-",
    b"x-auth-request-",
    b"x-amzn-oidc-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-ms-client-principal",
    b"x-ssl-client-",
    b"ssl-client-",
    b"x-envoy-",
    b"x-webauth-",
    b"x-authentik-",
    b"cf-access-",
    # Next.js skips its middleware, which often checks who calls, for whoever sends it (CVE-2025-29927).
    b"x-middleware-",
)

RULES: Final = FieldRules(
    dropped=frozenset((*_IDENTITIES, *_ADDRESSES, *_OVERRIDES, *_OTHERS)),
    dropped_prefixes=_PREFIXES,
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
