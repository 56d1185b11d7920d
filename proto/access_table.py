"""Prints `docs/access.md`: who may call which RPC, read from the contract. `make proto` writes the page anew."""

from __future__ import annotations

import sys
from pathlib import Path

from tollway.options.v1 import access_pb2

from contract.services import SERVICES
from mesh.rpc.access import Rule, platform_role_has, read_rule, role_has

PAGE = Path(__file__).resolve().parents[1] / "docs" / "access.md"
ROLES = {
    "owner": access_pb2.ROLE_OWNER,
    "admin": access_pb2.ROLE_ADMIN,
    "member": access_pb2.ROLE_MEMBER,
}
PLATFORM_ROLES = {
    "platform admin": access_pb2.PLATFORM_ROLE_ADMIN,
    "platform support": access_pb2.PLATFORM_ROLE_SUPPORT,
    "platform gateway": access_pb2.PLATFORM_ROLE_GATEWAY,
}


def page() -> str:
    """Return the page's text."""
    columns = ["RPC", *ROLES, *PLATFORM_ROLES, "service accounts", "while suspended", "processes"]
    lines = [
        "# Who may call what",
        "",
        "Read from the protos by `make proto`; `make check` compares. Roles are those in the organization that a",
        "request names; the operator's own roles hold in every organization. Another tenant's is NOT_FOUND. With",
        "`self` people act on what is theirs alone, whatever their role. Whose own organization is suspended may",
        "call what says so; the operator's people may call everything.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for service in SERVICES.values():
        lines += [row(read_rule(method)) for method in service.descriptor.methods]
        lines += [row(read_rule(method, each)) for each in service.foreign for method in each.descriptor.methods]
    return "\n".join(lines) + "\n"


def row(rule: Rule) -> str:
    """Return the table's row of one RPC."""
    name = f"`{rule.method.containing_service.name}.{rule.method.name}`"
    if access_pb2.CALLER_ANYONE in rule.callers:
        return f"| {name} |" + " anyone |" * (len(ROLES) + len(PLATFORM_ROLES) + 3)
    has_role = bool(rule.callers & {access_pb2.CALLER_PERSON, access_pb2.CALLER_SERVICE_ACCOUNT})
    cells = [has_role and role_has(role, rule.permission) for role in ROLES.values()]
    cells += [has_role and platform_role_has([role], rule.permission) for role in PLATFORM_ROLES.values()]
    cells.append(access_pb2.CALLER_SERVICE_ACCOUNT in rule.callers)
    cells.append(rule.allowed_while_suspended)
    words = ["yes" if cell else "" for cell in cells]
    if rule.acts_on_caller:
        words[: len(ROLES) + len(PLATFORM_ROLES)] = ["self"] * (len(ROLES) + len(PLATFORM_ROLES))
    return "| " + " | ".join([name, *words, ", ".join(sorted(rule.processes))]) + " |"


def main() -> int:
    """Write the page, or with `--check` compare it. Returns the exit status."""
    if "--check" in sys.argv:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        if not fresh:
            print("docs/access.md is out of date: run `make proto`")
        return 0 if fresh else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
