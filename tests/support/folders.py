"""Folders that another user may enter: as root, PostgreSQL runs as one.

pytest's own temporary folders cannot serve: every pytest that starts closes their common parent again (mode 0700),
under the feet of those that run beside it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder(name: str) -> Iterator[Path]:
    """Makes a folder below the system's temporary one and deletes it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"tollway-{name}-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
