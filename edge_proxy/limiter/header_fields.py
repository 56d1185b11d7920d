"""Tells the client what is left.

`X-RateLimit-*` is the widespread form and has room for one window: the one with least left relative to its limit, its
reset in Unix seconds. `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) name every window; `t`
is the seconds until more quota comes: the next unit of a token bucket, the end of a calendar period.
"""

from __future__ import annotations

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract.windows import more_ms
from edge_proxy.limiter.policy import CompiledPolicy


def limit_lines(policy: CompiledPolicy | None, verdict: ratelimit.Verdict, now_seconds: float) -> bytes:
    """Return the header lines for a verdict, or nothing where its policy is not known.

    Args:
        policy: The organization's policy.
        verdict: What was decided; `remaining` and `reset_ms` follow the policy's windows.
        now_seconds: Unix time.
    """
    if policy is None or not policy.limits:
        return b""
    # A slice is a list already; `list()` would fetch the numbers one by one.
    remaining, reset_ms = verdict.remaining[:], verdict.reset_ms[:]
    limits = policy.limits
    if len(remaining) != len(limits) or len(reset_ms) != len(limits):
        return b""
    tightest, least = 0, 2.0
    states: list[int] = []
    for index, limit in enumerate(limits):
        left = remaining[index]
        share = left / limit
        if share < least:
            tightest, least = index, share
        states += (left, (more_ms(limit, policy.refills_ms[index], left, reset_ms[index]) + 999) // 1000)
    reset = int(now_seconds + reset_ms[tightest] / 1000) + 1
    return policy.template % (limits[tightest], remaining[tightest], reset, *states)
