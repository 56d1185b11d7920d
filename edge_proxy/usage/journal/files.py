"""The system calls that the journal makes, behind one small interface, so that tests can fill the disk.

Every call that changes a file is here, and only those. Nothing is retried and nothing is hidden: an `OSError` of the
system is an `OSError` of the call.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, Protocol

# What this process or machine lacks for the moment; it says nothing about the file.
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})


def is_passing(error: OSError) -> bool:
    """Tell whether a file may be readable although it cannot be read now."""
    return error.errno in _PASSING


class Files(Protocol):
    """What the journal asks of the file system."""

    def create(self, path: Path) -> int:
        """Make a file that is not there yet and return a descriptor that appends to it."""
        ...

    def write(self, descriptor: int, data: bytes) -> int:
        """Write at the end; return how many bytes were written."""
        ...

    def overwrite(self, descriptor: int, data: bytes) -> None:
        """Write at the start of a file that has the bytes already."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to a size."""
        ...

    def allocate(self, path: Path, size: int) -> None:
        """Make a file of a size, with its space reserved, and remove it again."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return once the file's data is on the disk. May be called from another thread."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Return once the names in a folder are on the disk. May be called from another thread."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it where they are missing, for this user only."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is gone already is no error."""
        ...


class OsFiles:
    """The real file system."""

    def create(self, path: Path) -> int:
        """Make a file and return a descriptor that appends to it."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: bytes) -> int:
        """Write at the end."""
        return os.write(descriptor, data)

    def overwrite(self, descriptor: int, data: bytes) -> None:
        """Write at the start."""
        os.pwrite(descriptor, data, 0)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size)

    def allocate(self, path: Path, size: int) -> None:
        """Reserve space and give it back."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def sync(self, descriptor: int) -> None:
        """Flush a file's data (fdatasync(2))."""
        os.fdatasync(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Flush a folder (fsync(2) on the directory)."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems cannot, which is no failure of the disk.
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """Rename."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)
