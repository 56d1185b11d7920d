"""Whether the routes in force are those of the file on disk, so that health can say when they are not.

A file that was changed and not reloaded, or refused, is no outage: the routes in force go on. But whoever changed it
must not believe that it counts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

CHECK_SECONDS: Final = 1.0


class RoutesInForce:
    """Compares the file on disk with what is in force; reads it only when its metadata has changed.

    Args:
        path: The file that people edit.
        text: What is in force.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._seen: tuple[int, int, int] | None = None
        self.reason = ""

    def take(self, text: str) -> None:
        """Note that another text is in force now."""
        self._text = text
        self._seen = None
        self.check()

    def check(self) -> None:
        """Look at the file and set `reason`, which is empty where all is well."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            is_same = self._path.read_text(encoding="utf-8") == self._text
        except (OSError, UnicodeDecodeError):
            self._seen = None
            self.reason = "routes: the file on disk cannot be read; the routes read before stay in force"
            return
        self._seen = seen
        self.reason = "" if is_same else "routes: the file on disk is not the one in force (changed or refused)"

    async def watch(self) -> None:
        """Check once a second."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_SECONDS)
