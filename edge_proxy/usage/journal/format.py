"""The journal's format, version 1. Little-endian throughout.

A journal is a folder named by its UUID::

    lock              held with flock by the worker that writes it, later by whoever sends what it left
    acknowledged      position up to which the sink has committed, with its CRC-32; may lag behind the truth
    <number>.segment  records, numbered from 1 without gaps

A segment starts with a header: magic `TWJRNL`, version (2 bytes), journal UUID (16), segment number (8), position of
the segment's first record in the journal (8), CRC-32 of all that (4). Records follow: payload length (4), CRC-32 of the
length's bytes and the payload (4), payload. The length is part of the sum, so that a hole of zeros is not a record.

A *position* counts record bytes over the whole journal; headers are not part of it. It only grows, whatever is dropped.

What a crash can leave: a record that was cut off at the end of the last segment. That is the torn tail and no error: no
client was told that its answer is whole before its record was complete. A bad sum with readable records behind it is
corruption; reading goes on at the next record that checks, and the gap is reported.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

MAGIC: Final = b"TWJRNL"
VERSION: Final = 1
EVENT_BYTES_MAX: Final = 4_096
LOCK_NAME: Final = "lock"
ACKNOWLEDGED_NAME: Final = "acknowledged"
SEGMENT_SUFFIX: Final = ".segment"
PROBE_SUFFIX: Final = ".probe"

_HEADER: Final = struct.Struct("<6sH16sQQ")
_CRC: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_ACKNOWLEDGED: Final = struct.Struct("<Q")

HEADER_BYTES: Final = _HEADER.size + _CRC.size
RECORD_OVERHEAD_BYTES: Final = _RECORD.size


class NotASegment(Exception):
    """A file does not start like a segment of this version."""


class RecordTooLarge(Exception):
    """A payload does not fit a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What a segment says about itself."""

    journal_id: UUID
    number: int
    base_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Records read from a piece of a segment.

    Args:
        payloads: In order.
        size: Bytes read, the last whole record's end; corrupt ranges between records are included.
        corrupt: The ranges that were not records, as offsets.
        is_cut_off: Whether what follows looks like a record that is not all there.
    """

    payloads: list[bytes]
    size: int
    corrupt: list[tuple[int, int]]
    is_cut_off: bool


def segment_name(number: int) -> str:
    """Return the file's name; names sort like numbers."""
    return f"{number:016d}{SEGMENT_SUFFIX}"


def encode_header(header: SegmentHeader) -> bytes:
    """Return a segment's first bytes."""
    packed = _HEADER.pack(MAGIC, VERSION, header.journal_id.bytes, header.number, header.base_position)
    return packed + _CRC.pack(zlib.crc32(packed))


def decode_header(data: bytes) -> SegmentHeader:
    """Read a segment's first bytes.

    Raises:
        NotASegment: They are too few, of another kind or version, or damaged.
    """
    if len(data) < HEADER_BYTES:
        raise NotASegment("too short")
    packed, checksum = data[: _HEADER.size], data[_HEADER.size : HEADER_BYTES]
    magic, version, journal_id, number, base_position = _HEADER.unpack(packed)
    if magic != MAGIC or version != VERSION or _CRC.pack(zlib.crc32(packed)) != checksum:
        raise NotASegment("not a header of this version")
    return SegmentHeader(journal_id=UUID(bytes=journal_id), number=number, base_position=base_position)


def encode_record(payload: bytes) -> bytes:
    """Return a record.

    Raises:
        RecordTooLarge: The payload is empty or above `EVENT_BYTES_MAX`.
    """
    size = len(payload)
    if not 0 < size <= EVENT_BYTES_MAX:
        raise RecordTooLarge
    length = _LENGTH.pack(size)
    return b"%b%b%b" % (length, _CRC.pack(zlib.crc32(payload, zlib.crc32(length))), payload)


def scan(data: bytes, *, count_max: int, is_last: bool) -> Scan:
    """Read records from the start of `data`.

    Args:
        data: Bytes of a segment, from a record's start on.
        count_max: Stop after this many.
        is_last: Whether nothing follows `data` in its segment: then a bad record with good ones behind it is
            corruption; otherwise an incomplete one is left for the next call.
    """
    payloads: list[bytes] = []
    corrupt: list[tuple[int, int]] = []
    position = 0
    end = len(data)
    while position < end and len(payloads) < count_max:
        payload = _record_at(data, position)
        if payload is not None:
            payloads.append(payload)
            position += RECORD_OVERHEAD_BYTES + len(payload)
            continue
        if not is_last and _is_cut_off(data, position):
            break
        found = _next_record(data, position + 1)
        if found is None:
            if not is_last and end - position > EVENT_BYTES_MAX + RECORD_OVERHEAD_BYTES:
                # More than a whole record is unreadable: nothing that comes later can mend its start.
                readable_from = end - EVENT_BYTES_MAX - RECORD_OVERHEAD_BYTES
                corrupt.append((position, readable_from))
                position = readable_from
            break
        corrupt.append((position, found))
        position = found
    return Scan(payloads=payloads, size=position, corrupt=corrupt, is_cut_off=_is_cut_off(data, position))


def encode_acknowledged(position: int) -> bytes:
    """Return the content of the `acknowledged` file."""
    packed = _ACKNOWLEDGED.pack(position)
    return packed + _CRC.pack(zlib.crc32(packed))


def decode_acknowledged(data: bytes) -> int | None:
    """Read the `acknowledged` file; None where it is damaged, which only means sending again."""
    packed, checksum = data[: _ACKNOWLEDGED.size], data[_ACKNOWLEDGED.size :]
    if len(packed) < _ACKNOWLEDGED.size or _CRC.pack(zlib.crc32(packed)) != checksum:
        return None
    return int(_ACKNOWLEDGED.unpack(packed)[0])


def _record_at(data: bytes, position: int) -> bytes | None:
    start = position + RECORD_OVERHEAD_BYTES
    if start > len(data):
        return None
    size, checksum = _RECORD.unpack_from(data, position)
    if not 0 < size <= EVENT_BYTES_MAX:
        return None
    payload = data[start : start + size]
    if len(payload) < size or zlib.crc32(payload, zlib.crc32(data[position : position + 4])) != checksum:
        return None
    return payload


def _is_cut_off(data: bytes, position: int) -> bool:
    """Tell whether a record at the end of a piece looks sound as far as it goes."""
    start = position + RECORD_OVERHEAD_BYTES
    if start > len(data):
        return True
    size = int(_LENGTH.unpack_from(data, position)[0])
    return 0 < size <= EVENT_BYTES_MAX and start + size > len(data)


def _next_record(data: bytes, position: int) -> int | None:
    for candidate in range(position, len(data) - RECORD_OVERHEAD_BYTES):
        if _record_at(data, candidate) is not None:
            return candidate
    return None
