"""Instants out of protobuf."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def from_timestamp(time: Timestamp) -> datetime:
    """Return an aware instant."""
    return time.ToDatetime(tzinfo=UTC)


def optional_time(proto: Any, field: str) -> datetime | None:
    """Return an instant where the field is set."""
    return from_timestamp(getattr(proto, field)) if proto.HasField(field) else None
