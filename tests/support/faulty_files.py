"""A file system that is full, fails, or notes what it is asked; for the journal's tests."""

from __future__ import annotations

import errno
from pathlib import Path

from edge_proxy.usage.journal.files import OsFiles


class FaultyFiles(OsFiles):
    """Real files, with a budget of bytes and with calls that fail.

    `budget` is how many bytes may still be written, None for any number. A call whose name is in `failing` raises that
    error. `calls` notes what was asked, in order, by name and file.
    """

    def __init__(self) -> None:
        self.budget: int | None = None
        self.failing: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []

    def named(self, name: str) -> list[str]:
        """Return what a call was made with."""
        return [what for call, what in self.calls if call == name]

    def create(self, path: Path) -> int:
        self._note("create", path.name)
        return super().create(path)

    def write(self, descriptor: int, data: bytes) -> int:
        self._note("write", str(len(data)))
        if self.budget is None:
            return super().write(descriptor, data)
        if not self.budget:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(descriptor, data[: self.budget])
        self.budget -= written
        return written

    def overwrite(self, descriptor: int, data: bytes) -> None:
        self._note("overwrite", "")
        super().overwrite(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._note("truncate", str(size))
        super().truncate(descriptor, size)

    def allocate(self, path: Path, size: int) -> None:
        self._note("allocate", path.name)
        if self.budget is not None and self.budget < size:
            raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, descriptor: int) -> None:
        self._note("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink().name))
        super().sync(descriptor)

    def sync_folder(self, path: Path) -> None:
        self._note("sync_folder", path.name)
        super().sync_folder(path)

    def make_folder(self, path: Path) -> None:
        self._note("make_folder", path.name)
        super().make_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename", target.name)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._note("unlink", path.name)
        super().unlink(path)

    def _note(self, name: str, what: str) -> None:
        self.calls.append((name, what))
        if name in self.failing:
            raise OSError(self.failing[name], f"{name} fails")
