"""What a policy must be. Pure; everything that is wrong is told at once."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from mesh.rpc.errors import Violations

WINDOWS_MAX: Final = 16
NAME_LENGTH_MAX: Final = 32
PERIOD_SECONDS_MAX: Final = 31 * 86_400
# Redis' Lua counts in doubles, and limit x period in milliseconds must be exact in one.
EXACT_MAX: Final = 2**53 - 1
CALENDAR_LIMIT_MAX: Final = 2**52

# RFC 8941 section 3.1.2: key = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )
_NAME: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")

_CALENDAR_KINDS: Final = frozenset({pb.WINDOW_KIND_CALENDAR_DAY, pb.WINDOW_KIND_CALENDAR_MONTH})
_SCOPES: Final = frozenset(pb.WindowScope.values()) - {pb.WINDOW_SCOPE_UNSPECIFIED}


def check_policy(policy: pb.Policy, wrong: Violations) -> None:
    """Note everything that is wrong with a policy."""
    try:
        UUID(policy.organization_id)
    except ValueError:
        wrong.add("policy.organization_id", "must be a UUID")
    wrong.check(policy.version >= 1, "policy.version", "must be at least 1")
    wrong.check(1 <= len(policy.windows) <= WINDOWS_MAX, "policy.windows", f"must be 1 to {WINDOWS_MAX} windows")
    names = [window.name for window in policy.windows]
    for index, window in enumerate(policy.windows):
        path = f"policy.windows[{index}]"
        wrong.check(names.index(window.name) == index, f"{path}.name", "must be unique")
        _check_window(window, path, wrong)


def _check_window(window: pb.Window, path: str, wrong: Violations) -> None:
    name_ok = _NAME.fullmatch(window.name) is not None and len(window.name) <= NAME_LENGTH_MAX
    wrong.check(name_ok, f"{path}.name", f"must be an RFC 8941 key of at most {NAME_LENGTH_MAX} characters")
    wrong.check(window.scope in _SCOPES, f"{path}.scope", "must be a known scope")
    wrong.check(window.limit >= 1, f"{path}.limit", "must be at least 1")
    if window.kind == pb.WINDOW_KIND_TOKEN_BUCKET:
        _check_token_bucket(window, path, wrong)
    elif wrong.check(window.kind in _CALENDAR_KINDS, f"{path}.kind", "must be a known kind"):
        wrong.check(window.period_seconds == 0, f"{path}.period_seconds", "must be 0 for a calendar window")
        wrong.check(window.limit <= CALENDAR_LIMIT_MAX, f"{path}.limit", f"must be at most {CALENDAR_LIMIT_MAX}")


def _check_token_bucket(window: pb.Window, path: str, wrong: Violations) -> None:
    if wrong.check(
        1 <= window.period_seconds <= PERIOD_SECONDS_MAX,
        f"{path}.period_seconds",
        f"must be 1 to {PERIOD_SECONDS_MAX} for a token bucket",
    ):
        limit_max = EXACT_MAX // (window.period_seconds * 1_000)
        wrong.check(window.limit <= limit_max, f"{path}.limit", f"must be at most {limit_max} with this period")
    wrong.check(
        not window.counts_billable_only,
        f"{path}.counts_billable_only",
        "is for calendar windows: a token bucket limits how fast requests come, billed or not",
    )
