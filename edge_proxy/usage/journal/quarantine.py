"""Where files go that could not be read: out of the way, but never deleted. A person looks at them and removes them.

The folder `quarantine` lies beside the folder of the journals, with a folder for each journal in it. Moving is a
rename, so it needs no space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from edge_proxy.usage.journal.files import Files

FOLDER_NAME: Final = "quarantine"

log = structlog.get_logger()


def folder_of(root: Path) -> Path:
    """Return where the quarantine of a folder of journals lies."""
    return root.with_name(FOLDER_NAME)


def put_away(files: Files, root: Path, path: Path) -> None:
    """Move a journal's file into quarantine, under a name that is free.

    Raises:
        OSError: It could not be moved; it is where it was.
    """
    folder = folder_of(root) / path.parent.name.strip(".")
    files.make_folder(folder)
    target = folder / path.name
    tries = 0
    while target.exists():
        tries += 1
        target = folder / f"{path.name}.{tries}"
    files.rename(path, target)
    files.sync_folder(folder)
    log.error("journal_file_quarantined", file=str(target))


def count(root: Path) -> int:
    """Return how many files wait for somebody to look at them."""
    folder = folder_of(root)
    return sum(1 for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
