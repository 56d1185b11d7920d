"""Which fields of a client say what only a gateway may say, and in which fields a gateway of ours says it.

An upstream behind a gateway may believe what the gateway says about a request. So whatever says the same must come from
the gateway and from nobody else. Our edge drops these fields, and what `auth` answers to Envoy has Envoy drop them:

- who calls: a gateway says it in `X-Tollway-*`, and others in names of their own;
- from where, and in which scheme: what load balancers and content networks write down;
- what is asked for: another path or another method than those that were matched, authorized and priced;
- `Proxy`, which CGI programs mistake for the address of their outgoing proxy ("httpoxy", CVE-2016-5385).
"""

from __future__ import annotations

from typing import Final

API_KEY: Final = b"x-api-key"

ORGANIZATION_ID: Final = "X-Tollway-Organization-Id"
API_KEY_ID: Final = "X-Tollway-Api-Key-Id"
EXTERNAL_SUBJECT: Final = "X-Tollway-External-Subject"
PLAN_ID: Final = "X-Tollway-Plan-Id"

IDENTITIES: Final = (
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
ADDRESSES: Final = (
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
OVERRIDES: Final = (
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
OTHERS: Final = (b"proxy", b"x-request-id")
PREFIXES: Final = (
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
