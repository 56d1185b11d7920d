"""Fields that several of auth's resources have, read from requests and written to answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.auth.model import KeyMode

SUBJECT_LENGTH_MAX: Final = 200
MODES: Final = {KeyMode.LIVE: pb.KEY_MODE_LIVE, KeyMode.TEST: pb.KEY_MODE_TEST}


def to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """Convert an instant."""
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def check_text(violations: Violations, field: str, text: str, *, length_min: int, length_max: int) -> None:
    """Note a text that is too short, too long or not printable."""
    right = length_min <= len(text) <= length_max and (text.isprintable())
    violations.check(right, field, f"must have {length_min} to {length_max} printable characters")


def read_time(violations: Violations, field: str, timestamp: timestamp_pb2.Timestamp) -> datetime | None:
    """Return an instant; one that is out of range is noted and stands as None."""
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        violations.add(field, "must be a valid time")
        return None
