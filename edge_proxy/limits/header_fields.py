"""Tells the client what is left.

`X-RateLimit-*` is the widespread form and has room for one window: the one with least left relative to its limit, its
reset in Unix seconds. `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) name every window; `t`
is the seconds until that window is whole again.
"""

from __future__ import annotations

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.limits.policy import CompiledPolicy


def limit_lines(policy: CompiledPolicy | None, verdict: ratelimit.Verdict, now_seconds: float) -> bytes:
    """Return the header lines for a verdict, or nothing where its policy is not known.

    Args:
        policy: The organization's policy.
        verdict: What was decided; `remaining` and `reset_ms` follow the policy's windows.
        now_seconds: Unix time.
    """
    if policy is None or not policy.limits:
        return b""
    remaining, reset_ms = verdict.remaining, verdict.reset_ms
    if len(remaining) != len(policy.limits) or len(reset_ms) != len(remaining):
        return b""
    tightest, least = 0, 2.0
    parts = []
    for index, (name, limit, left, reset) in enumerate(
        zip(policy.names, policy.limits, remaining, reset_ms, strict=True)
    ):
        share = left / limit if limit else 0.0
        if share < least:
            tightest, least = index, share
        parts.append(f"{name};r={max(left, 0)};t={(reset + 999) // 1000}")
    fields = (
        f"X-RateLimit-Limit: {policy.limits[tightest]}\r\n"
        f"X-RateLimit-Remaining: {max(remaining[tightest], 0)}\r\n"
        f"X-RateLimit-Reset: {int(now_seconds + reset_ms[tightest] / 1000) + 1}\r\n"
        f"RateLimit: {', '.join(parts)}\r\n"
    )
    return policy.policy_line + fields.encode("ascii")
