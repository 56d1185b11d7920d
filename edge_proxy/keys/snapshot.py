"""The key cache on disk, so that a worker starts while `auth` is down.

The file holds digests and grants, never keys: magic and version, a length and a message with what imported keys begin
with, then per grant a length and the serialised message, then a CRC-32 of everything before. It is replaced as a whole
(write, fsync, rename, fsync of the folder). Version 1, which had grants alone, is read too; a file that is torn or of
another version counts as none.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from tollway.auth.v1 import auth_service_pb2 as auth

MAGIC: Final = b"TWKEYS\x00\x02"
MAGIC_1: Final = b"TWKEYS\x00\x01"
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known of keys."""

    grants: list[auth.KeyGrant]
    prefixes: tuple[str, ...] = ()


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot; it is on the disk when this returns."""
    parts = [MAGIC]
    for each in (auth.ImportedPrefixes(prefixes=snapshot.prefixes), *snapshot.grants):
        message = each.SerializeToString()
        parts += (_LENGTH.pack(len(message)), message)
    content = b"".join(parts)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content + _LENGTH.pack(zlib.crc32(content)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Snapshot | None:
    """Return the snapshot, or None where there is none that can be trusted."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, checksum = content[:-4], content[-4:]
    magic = body[: len(MAGIC)]
    if magic not in (MAGIC, MAGIC_1) or _LENGTH.pack(zlib.crc32(body)) != checksum:
        return None
    try:
        messages = list(_messages(body))
        prefixes = auth.ImportedPrefixes.FromString(messages.pop(0)).prefixes if magic == MAGIC else ()
        return Snapshot(grants=[auth.KeyGrant.FromString(each) for each in messages], prefixes=tuple(prefixes))
    except (struct.error, DecodeError, IndexError):
        return None


def _messages(body: bytes) -> Iterator[bytes]:
    position = len(MAGIC)
    while position < len(body):
        (length,) = _LENGTH.unpack_from(body, position)
        position += 4
        yield body[position : position + length]
        position += length
