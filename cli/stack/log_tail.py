"""The end of a child's log, for the one line that says why it failed."""

from __future__ import annotations

import json
from pathlib import Path

TAIL_BYTES_MAX = 8_192
LINE_CHARACTERS_MAX = 300


def tail(path: Path, line_count: int) -> list[str]:
    """Returns at most the last `line_count` lines that are not blank; none when there is no file."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - TAIL_BYTES_MAX))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines[-line_count:]


def last_line(path: Path) -> str:
    """Returns what the last line says, or that there is none."""
    lines = tail(path, 1)
    return _readable(lines[0])[:LINE_CHARACTERS_MAX] if lines else f"it wrote nothing to {path}"


def _readable(line: str) -> str:
    """Returns a JSON log line's event and reason; any other line as it is."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    reason = record.get("error") or record.get("detail") or _last_of(record.get("exception"))
    return f"{record.get('event', '')}: {reason}" if reason else str(record.get("event", line))


def _last_of(exception: object) -> str:
    return str(exception).strip().splitlines()[-1] if exception else ""
