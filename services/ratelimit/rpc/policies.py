"""Policies on the wire. Everything that is wrong with one is told at once."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.windows import EXACT_MAX, from_message, problems
from mesh.rpc.errors import Violations
from services.ratelimit.model import Policy
from services.ratelimit.service import PolicyService

WINDOWS_MAX: Final = 16
NAME_LENGTH_MAX: Final = 32

# RFC 8941 section 3.1.2: key = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )
_NAME: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")

_SCOPES: Final = frozenset(pb.WindowScope.values()) - {pb.WINDOW_SCOPE_UNSPECIFIED}


class PolicyRpcs:
    """Handles the RPCs about policies.

    Args:
        policies: The rules.
    """

    def __init__(self, policies: PolicyService) -> None:
        self._policies = policies

    async def PutPolicy(self, request: pb.PutPolicyRequest, context: Any) -> pb.Policy:
        """Put a policy in force."""
        violations = Violations()
        check_policy(request.policy, violations)
        violations.raise_if_any()
        return to_policy(await self._policies.put(from_policy(request.policy)))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.Policy:
        """Get the policy in force."""
        violations = Violations()
        try:
            organization_id = UUID(request.organization_id)
        except ValueError:
            violations.add("organization_id", "must be a UUID")
        violations.raise_if_any()
        return to_policy(await self._policies.get(organization_id))


def check_policy(policy: pb.Policy, violations: Violations) -> None:
    """Note everything that is wrong with a policy."""
    try:
        UUID(policy.organization_id)
    except ValueError:
        violations.add("policy.organization_id", "must be a UUID")
    violations.check(1 <= policy.version <= EXACT_MAX, "policy.version", f"must be 1 to {EXACT_MAX}")
    violations.check(1 <= len(policy.windows) <= WINDOWS_MAX, "policy.windows", f"must be 1 to {WINDOWS_MAX} windows")
    names = [window.name for window in policy.windows]
    for index, window in enumerate(policy.windows):
        path = f"policy.windows[{index}]"
        violations.check(names.index(window.name) == index, f"{path}.name", "must be unique")
        _check_window(window, path, violations)


def _check_window(window: pb.Window, path: str, violations: Violations) -> None:
    name_ok = _NAME.fullmatch(window.name) is not None and len(window.name) <= NAME_LENGTH_MAX
    violations.check(name_ok, f"{path}.name", f"must be an RFC 8941 key of at most {NAME_LENGTH_MAX} characters")
    violations.check(window.scope in _SCOPES, f"{path}.scope", "must be a known scope")
    for field, sentence in problems(window):
        violations.add(f"{path}.{field}", sentence)


def from_policy(message: pb.Policy) -> Policy:
    """Read a policy that has been checked."""
    return Policy(
        organization_id=UUID(message.organization_id),
        version=message.version,
        windows=tuple(from_message(window) for window in message.windows),
    )


def to_policy(policy: Policy) -> pb.Policy:
    """Write a policy."""
    return pb.Policy(
        organization_id=str(policy.organization_id),
        version=policy.version,
        windows=[
            pb.Window(
                name=window.name,
                kind=pb.WindowKind.ValueType(window.kind),
                limit=window.limit,
                period_seconds=window.period_seconds,
                scope=pb.WindowScope.ValueType(window.scope),
                counts_billable_only=window.counts_billable_only,
            )
            for window in policy.windows
        ],
    )
