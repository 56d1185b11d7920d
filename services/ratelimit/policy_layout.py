"""Lays a policy out the way decide.lua wants it, once per policy version, so that a decision carries numbers only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from contract.windows import CALENDAR_KINDS, Window, WindowKind, WindowScope, lasts_ms, state_fields
from services.ratelimit.model import Policy

_WINDOW: Final = struct.Struct("<BBBBdd")
_HEADER_LENGTH: Final = struct.Struct("<H")


TtlBase: TypeAlias = tuple[int, bool, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLayout:
    """A policy, ready to be sent to Redis.

    Args:
        policy: As it was put.
        spec: Its windows, for decide.lua, and `spec_format`, which unpacks them.
        formats: What unpacks the values of each scope.
        ttl_bases: Per scope, how long its token buckets matter, in milliseconds, and which calendar windows it has.
        headers: What the packed value of each scope begins with; empty where the scope has no window.
        record: Reads one verdict: kind, denied_by, retry_after_ms, then remaining and reset_ms per window.
        window_count: How many windows there are.
        live_prefix: What every Redis key of live requests begins with; the braces are the cluster's hash tag.
        test_prefix: The same for test keys, which have counters of their own.
        scoped: Whether there are windows per organization, per key and per route.
    """

    policy: Policy
    spec: bytes
    spec_format: str
    headers: tuple[bytes, bytes, bytes]
    formats: tuple[str, str, str]
    ttl_bases: tuple[TtlBase, TtlBase, TtlBase]
    record: struct.Struct
    window_count: int
    live_prefix: bytes
    test_prefix: bytes
    scoped: tuple[bool, bool, bool]


def lay_out(policy: Policy) -> PolicyLayout:
    """Lay a valid policy out."""
    organization, api_key, route = (
        [window for window in policy.windows if window.scope is scope] for scope in WindowScope
    )
    slots = _slots(organization) | _slots(api_key) | _slots(route)
    tag = policy.organization_id.hex.encode()
    return PolicyLayout(
        policy=policy,
        spec=b"".join(_spec(window, slots[window.name]) for window in policy.windows),
        spec_format="<" + "BBBBdd" * len(policy.windows),
        headers=(_header(organization), _header(api_key), _header(route)),
        formats=(_format(organization), _format(api_key), _format(route)),
        ttl_bases=(_ttl_base(organization), _ttl_base(api_key), _ttl_base(route)),
        record=struct.Struct("<BBq" + "qq" * len(policy.windows)),
        window_count=len(policy.windows),
        live_prefix=b"rl2:{" + tag + b"}:",
        test_prefix=b"rl2:{" + tag + b"}:t",
        scoped=(bool(organization), bool(api_key), bool(route)),
    )


def _spec(window: Window, slot: int) -> bytes:
    return _WINDOW.pack(
        window.scope,
        window.kind,
        window.counts_billable_only and window.kind in CALENDAR_KINDS,
        slot,
        window.limit,
        window.period_ms,
    )


def _slots(windows: Sequence[Window]) -> dict[str, int]:
    """Return where each window's first number stands; 1 is the instant of writing, 2 the policy's version."""
    slots, slot = {}, 3
    for window in windows:
        slots[window.name] = slot
        slot += len(state_fields(window.kind))
    return slots


def _format(windows: Sequence[Window]) -> str:
    return "<dd" + "d" * sum(len(state_fields(window.kind)) for window in windows)


def _ttl_base(windows: Sequence[Window]) -> TtlBase:
    kinds = {window.kind for window in windows}
    longest_ms = max((lasts_ms(window) for window in windows), default=0)
    return longest_ms, WindowKind.CALENDAR_DAY in kinds, WindowKind.CALENDAR_MONTH in kinds


def _header(windows: Sequence[Window]) -> bytes:
    if not windows:
        return b""
    text = "".join(f"{w.name}={w.kind:d},{w.period_ms:d};" for w in windows)
    return _HEADER_LENGTH.pack(len(text)) + text.encode("ascii")
