"""The end of a child's log, for the one line that says why it failed."""

from __future__ import annotations

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
    lines = [line.rstrip()[:LINE_CHARACTERS_MAX] for line in text.splitlines() if line.strip()]
    return lines[-line_count:]


def last_line(path: Path) -> str:
    """Returns the last line that is not blank, or says that there is none."""
    lines = tail(path, 1)
    return lines[0] if lines else f"it wrote nothing to {path}"
