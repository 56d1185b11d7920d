"""What an edge knows of keys on its disk: a snapshot, and beside it a log of what changed since.

A snapshot of 100,000 keys cannot be written for every change, and a revocation cannot wait for the next one: an edge
that restarts while `auth` is away would serve the revoked key again. So every worker appends the changes that it learns
to one log and fsyncs it; whoever starts reads the snapshot and then the log. The order of records does not matter,
because a grant never replaces one with a higher version. A record whose state is unspecified says that a digest, up to
its version, is no longer known.

The log is bounded: above `LOG_BYTES_MAX` whoever appends folds it into the snapshot. Each new snapshot takes the log's
newer records in and ends with an empty log; the snapshot is on the disk before the log is cut. The worker that writes
it may be behind the others for long, so a new snapshot also keeps what was newer in the one before. That one is read
only where somebody else has written it; otherwise the writer remembers what was newer than its own grants. Where a
worker has a grant that another one has forgotten at the same version, the snapshot goes without it: that costs a
question and can never serve a revoked key. A lock file keeps the workers apart. A record is found by its marker and
checked by its CRC-32, so that one that was torn by a crash hides neither those before nor those behind it.

All functions block; they run in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys import snapshot
from edge_proxy.keys.snapshot import Snapshot

LOG_BYTES_MAX: Final = 16 << 20
LOCK_SECONDS_MAX: Final = 5.0
LOCK_POLL_SECONDS: Final = 0.01
_MARKER: Final = b"TWK\x01"
_HEAD: Final = struct.Struct("<4sII")


class KeyFiles:
    """The snapshot and the log of one edge.

    Args:
        folder: Where they lie; all workers of an edge share it.
    """

    def __init__(self, folder: Path) -> None:
        self._snapshot_path = folder / "keys.snapshot"
        self._log_path = folder / "keys.log"
        self._lock_path = folder / "keys.lock"
        # What stands in the snapshot that this object wrote and is newer than what it was given; which file that is.
        self._newer: list[auth.KeyGrant] = []
        self._written: tuple[int, int] | None = None

    def load(self) -> Snapshot | None:
        """Return what is known, or None where there is nothing that can be trusted.

        Raises:
            OSError: The files are locked for too long or cannot be read.
        """
        with self._locked():
            stored = snapshot.read(self._snapshot_path)
            return None if stored is None else _with_changes(stored, self._changes())

    def append(self, grants: Iterable[auth.KeyGrant]) -> None:
        """Add changes; they are on the disk when this returns.

        Raises:
            OSError: The files are locked for too long or cannot be written.
        """
        content = b"".join(_record(grant) for grant in grants)
        with self._locked():
            is_new = not self._log_path.exists()
            descriptor = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if is_new:
                snapshot.sync_folder(self._log_path.parent)
            if size > LOG_BYTES_MAX:
                self._fold()

    def replace(self, grants: Iterable[auth.KeyGrant], prefixes: tuple[str, ...] = ()) -> None:
        """Write a new snapshot and empty the log, whose newer records the snapshot takes in.

        Args:
            grants: What is known of keys.
            prefixes: What imported keys begin with.

        Raises:
            OSError: The files are locked for too long or cannot be written.
        """
        with self._locked():
            self._replace(grants, prefixes)

    def _replace(self, grants: Iterable[auth.KeyGrant], prefixes: tuple[str, ...]) -> None:
        known = {grant.digest: grant for grant in grants}
        changes = self._changes()
        newer = [grant for grant in (*self._stored(), *changes) if _is_newer(grant, known)]
        self._write(Snapshot(grants=_merged(known, (*newer, *changes)), prefixes=prefixes))
        self._newer, self._written = newer, self._identity()

    def _fold(self) -> None:
        stored = snapshot.read(self._snapshot_path)
        if stored is None:
            # Changes of a snapshot that is not there restrict nothing.
            os.truncate(self._log_path, 0)
        else:
            self._write(_with_changes(stored, self._changes()))

    def _write(self, known: Snapshot) -> None:
        snapshot.write(self._snapshot_path, known)
        if self._log_path.exists():
            os.truncate(self._log_path, 0)

    def _stored(self) -> list[auth.KeyGrant]:
        """Return the snapshot's grants; of one that this object wrote, only those that were newer than its own."""
        if self._written is not None and self._written == self._identity():
            return self._newer
        stored = snapshot.read(self._snapshot_path)
        return stored.grants if stored else []

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._snapshot_path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _changes(self) -> list[auth.KeyGrant]:
        try:
            return list(_records(self._log_path.read_bytes()))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            # Closing gives the lock back.
            os.close(descriptor)


def _is_newer(grant: auth.KeyGrant, known: Mapping[bytes, auth.KeyGrant]) -> bool:
    """Tell whether a grant of a key that is known stands over what is known of it."""
    held = known.get(grant.digest)
    return held is not None and held.version < grant.version


def _merged(known: dict[bytes, auth.KeyGrant], changes: Iterable[auth.KeyGrant]) -> list[auth.KeyGrant]:
    """Put changes over what is known, which is consumed, and leave out what is no longer to be used."""
    for grant in changes:
        held = known.get(grant.digest)
        if held is None or held.version <= grant.version:
            known[grant.digest] = grant
    return [grant for grant in known.values() if grant.state != auth.KEY_STATE_UNSPECIFIED]


def _with_changes(stored: Snapshot, changes: Iterable[auth.KeyGrant]) -> Snapshot:
    grants = _merged({grant.digest: grant for grant in stored.grants}, changes)
    return Snapshot(grants=grants, prefixes=stored.prefixes)


def _lock(descriptor: int) -> None:
    """Take the lock, but do not wait for ever: a worker that was stopped may hold it."""
    give_up_at = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _record(grant: auth.KeyGrant) -> bytes:
    payload = grant.SerializeToString()
    return _HEAD.pack(_MARKER, len(payload), zlib.crc32(payload)) + payload


def _records(content: bytes) -> Iterator[auth.KeyGrant]:
    position = content.find(_MARKER)
    while position >= 0:
        grant = _read_record(content, position)
        if grant is None:
            # Torn or damaged: look for the next one.
            position = content.find(_MARKER, position + 1)
            continue
        yield grant
        position = content.find(_MARKER, position + _HEAD.size)


def _read_record(content: bytes, position: int) -> auth.KeyGrant | None:
    if len(content) - position < _HEAD.size:
        return None
    _, length, checksum = _HEAD.unpack_from(content, position)
    start = position + _HEAD.size
    payload = content[start : start + length]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        return None
    try:
        return auth.KeyGrant.FromString(payload)
    except DecodeError:
        return None
