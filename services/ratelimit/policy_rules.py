"""What a policy must be. Pure; everything that is wrong is told at once."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.windows import problems
from mesh.rpc.errors import Violations

WINDOWS_MAX: Final = 16
NAME_LENGTH_MAX: Final = 32

# RFC 8941 section 3.1.2: key = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )
_NAME: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")

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
    for field, sentence in problems(window):
        wrong.add(f"{path}.{field}", sentence)
