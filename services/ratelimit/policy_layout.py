"""Lays a policy out the way decide.lua wants it, once per policy version, so that a decision carries numbers only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from services.ratelimit.convert import to_policy
from services.ratelimit.model import Policy, Window, WindowKind, WindowScope

MS_PER_SECOND: Final = 1_000

_COUNT: Final = struct.Struct("<B")
_WINDOW: Final = struct.Struct("<BBBdd")
_HEADER_LENGTH: Final = struct.Struct("<H")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLayout:
    """A policy, ready to be sent to Redis.

    Args:
        policy: As it was put.
        message: As it goes to edges.
        spec: Its windows, for decide.lua.
        headers: What the packed value of each scope begins with; empty where the scope has no window.
        record: Reads one verdict: kind, denied_by, retry_after_ms, then remaining and reset_ms per window.
        window_count: How many windows there are.
        live_prefix: What every Redis key of live requests begins with; the braces are the cluster's hash tag.
        test_prefix: The same for test keys, which have counters of their own.
        scoped: Whether there are windows per organization, per key and per route.
    """

    policy: Policy
    message: pb.Policy
    spec: bytes
    headers: tuple[bytes, bytes, bytes]
    record: struct.Struct
    window_count: int
    live_prefix: bytes
    test_prefix: bytes
    scoped: tuple[bool, bool, bool]


def lay_out(policy: Policy) -> PolicyLayout:
    """Lay a valid policy out."""
    by_scope = [[window for window in policy.windows if window.scope is scope] for scope in WindowScope]
    headers = tuple(_header(windows) for windows in by_scope)
    tag = policy.organization_id.hex.encode()
    return PolicyLayout(
        policy=policy,
        message=to_policy(policy),
        spec=_COUNT.pack(len(policy.windows)) + b"".join(_spec(window) for window in policy.windows),
        headers=(headers[0], headers[1], headers[2]),
        record=struct.Struct("<BBq" + "qq" * len(policy.windows)),
        window_count=len(policy.windows),
        live_prefix=b"rl:{" + tag + b"}:",
        test_prefix=b"rl:{" + tag + b"}:t",
        scoped=(bool(by_scope[0]), bool(by_scope[1]), bool(by_scope[2])),
    )


def _spec(window: Window) -> bytes:
    return _WINDOW.pack(
        window.scope,
        window.kind,
        window.counts_billable_only and window.kind is not WindowKind.TOKEN_BUCKET,
        window.limit,
        window.period_seconds * MS_PER_SECOND,
    )


def _header(windows: Sequence[Window]) -> bytes:
    if not windows:
        return b""
    text = "".join(f"{w.name}={w.kind:d},{w.period_seconds * MS_PER_SECOND:d};" for w in windows)
    return _HEADER_LENGTH.pack(len(text)) + text.encode("ascii")
