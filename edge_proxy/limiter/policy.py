"""An organization's policy as the edge needs it: compiled once per version, not once per request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract.windows import Window, WindowScope, from_message, refill_ms

VERSIONS_MAX: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledPolicy:
    """One version of one organization's limits.

    `scopes` are those that its windows have. `template` holds all limit fields of an answer with their constant parts
    filled in; see `header_fields`.
    """

    organization_id: bytes
    version: int
    windows: tuple[Window, ...]
    limits: tuple[int, ...]
    refills_ms: tuple[int, ...]
    scopes: tuple[WindowScope, ...]
    template: bytes


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
    windows = tuple(from_message(window) for window in policy.windows)
    return CompiledPolicy(
        organization_id=UUID(policy.organization_id).bytes,
        version=policy.version,
        windows=windows,
        limits=tuple(window.limit for window in windows),
        refills_ms=tuple(refill_ms(window) for window in windows),
        scopes=tuple({window.scope: None for window in windows}),
        template=_template(windows),
    )


def _template(windows: tuple[Window, ...]) -> bytes:
    """Return the fields with `%d` for limit, remaining and reset, then remaining and seconds of each window.

    Names are quoted as structured-field strings (RFC 8941); the limiter admits only key characters, so nothing in them
    needs escaping. `w` is left out where a window's length depends on the calendar.
    """
    policies, states = [], []
    for window in windows:
        length = f";w={window.period_seconds}" if window.period_seconds else ""
        policies.append(f'"{window.name}";q={window.limit}{length}')
        states.append(f'"{window.name}";r=%d;t=%d')
    return (
        f"RateLimit-Policy: {', '.join(policies)}\r\n"
        "X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n"
        f"RateLimit: {', '.join(states)}\r\n"
    ).encode("ascii")
