"""An organization's policy as the edge needs it: compiled once per version, not once per request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

CALENDAR_KINDS: Final = frozenset({ratelimit.WINDOW_KIND_CALENDAR_DAY, ratelimit.WINDOW_KIND_CALENDAR_MONTH})
VERSIONS_MAX: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledPolicy:
    """One version of one organization's limits.

    `policy_line` is the `RateLimit-Policy` field; `names` are quoted as structured-field strings (RFC 8941).
    """

    organization_id: bytes
    version: int
    windows: tuple[ratelimit.Window, ...]
    limits: tuple[int, ...]
    names: tuple[str, ...]
    policy_line: bytes


class Policies:
    """The policies that verdicts refer to, newest version per organization."""

    def __init__(self) -> None:
        self._by_organization: dict[bytes, CompiledPolicy] = {}

    def put(self, policy: ratelimit.Policy) -> None:
        """Store a policy that came over the stream, unless a newer one is held."""
        compiled = compile_policy(policy)
        held = self._by_organization.get(compiled.organization_id)
        if held is None or held.version <= compiled.version:
            self._by_organization[compiled.organization_id] = compiled
        while len(self._by_organization) > VERSIONS_MAX:
            self._by_organization.pop(next(iter(self._by_organization)))

    def get(self, organization_id: bytes) -> CompiledPolicy | None:
        """Return the newest policy that is known."""
        return self._by_organization.get(organization_id)


def compile_policy(policy: ratelimit.Policy) -> CompiledPolicy:
    """Prepare a policy for header fields and local enforcement."""
    windows = tuple(policy.windows)
    parts = []
    for window in windows:
        # `w` is left out where the window's length depends on the calendar.
        length = f";w={window.period_seconds}" if window.period_seconds else ""
        parts.append(f'"{window.name}";q={window.limit}{length}')
    line = f"RateLimit-Policy: {', '.join(parts)}\r\n".encode("ascii") if parts else b""
    return CompiledPolicy(
        organization_id=UUID(policy.organization_id).bytes,
        version=policy.version,
        windows=windows,
        limits=tuple(window.limit for window in windows),
        names=tuple(f'"{window.name}"' for window in windows),
        policy_line=line,
    )
