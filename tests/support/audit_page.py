"""What docs/audit.md says: which RPC notes which actions, or why it notes none."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
_ROW = re.compile(r"^\| `tollway\.([\w.]+)` \| (.*?) \| (.*?) ?\|$", re.MULTILINE)
_ACTION = re.compile(r"`([a-z_]+\.[a-z_]+)`")


def documented() -> dict[str, tuple[list[str], str]]:
    """Returns actions and remark by the RPC's full name."""
    rows = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len({name for name, _, _ in rows}) == len(rows)
    return {f"tollway.{name}": (_ACTION.findall(actions), remark) for name, actions, remark in rows}
