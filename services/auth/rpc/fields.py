"""Fields that several of auth's resources have, read from requests and written to answers."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import iso4217
from google.protobuf import field_mask_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import Violations
from services.auth.model import KeyMode

SUBJECT_LENGTH_MAX: Final = 200
EMAIL_LENGTH_MAX: Final = 254
LOCAL_PART_LENGTH_MAX: Final = 64
METADATA_MAX: Final = 50
METADATA_KEY_LENGTH_MAX: Final = 40
METADATA_VALUE_LENGTH_MAX: Final = 500
CURRENCY_CODE_DEFAULT: Final = "USD"
TIME_ZONE_DEFAULT: Final = "UTC"
CURRENCY_CODES: Final = frozenset(each.code for each in iso4217.Currency if each.exponent is not None)
"""What amounts can be in: gold and units of account have no minor unit."""
TIME_ZONES: Final = frozenset(zoneinfo.available_timezones())
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


# An address as browsers check it (HTML Living Standard, "valid e-mail address"), with a dot in its domain and no dot at
# a wrong place. A domain in another script comes in its ASCII form (RFC 5891), as browsers send it.
_EMAIL: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


def read_email(violations: Violations, field: str, text: str) -> str:
    """Return an e-mail address without blanks around it and in lower case; one that cannot be written to is noted.

    Letter case tells no two accounts apart: mail services that heed it before the @ are unheard of (RFC 5321 section
    2.4 lets them).
    """
    email = text.strip().lower()
    right = (
        len(email) <= EMAIL_LENGTH_MAX
        and email.find("@") <= LOCAL_PART_LENGTH_MAX
        and _EMAIL.fullmatch(email) is not None
    )
    violations.check(right, field, "must be an e-mail address, for example ada@example.com")
    return email


def read_currency_code(violations: Violations, field: str, text: str) -> str:
    """Return a currency (ISO 4217) that amounts can be in; empty means `CURRENCY_CODE_DEFAULT`."""
    code = text or CURRENCY_CODE_DEFAULT
    violations.check(code in CURRENCY_CODES, field, "must be a currency of ISO 4217, for example USD")
    return code


def read_time_zone(violations: Violations, field: str, text: str) -> str:
    """Return a time zone (IANA); empty means `TIME_ZONE_DEFAULT`."""
    time_zone = text or TIME_ZONE_DEFAULT
    violations.check(time_zone in TIME_ZONES, field, "must be a time zone of IANA, for example Europe/Berlin")
    return time_zone


def read_metadata(violations: Violations, field: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return an organization's metadata; too many, too long or unprintable pairs are noted."""
    violations.check(len(metadata) <= METADATA_MAX, field, f"must be at most {METADATA_MAX}")
    right = all(
        0 < len(key) <= METADATA_KEY_LENGTH_MAX
        and key.isprintable()
        and len(value) <= METADATA_VALUE_LENGTH_MAX
        and value.isprintable()
        for key, value in metadata.items()
    )
    violations.check(
        right,
        field,
        f"must have printable keys of 1 to {METADATA_KEY_LENGTH_MAX} and values of at most"
        f" {METADATA_VALUE_LENGTH_MAX} characters",
    )
    return dict(metadata)


def read_mask(violations: Violations, mask: field_mask_pb2.FieldMask, known: Collection[str]) -> frozenset[str]:
    """Return which fields are to be changed; none at all, and one that cannot be changed, are noted."""
    right = bool(mask.paths) and all(path in known for path in mask.paths)
    violations.check(right, "update_mask", f"must name some of {', '.join(known)}")
    return frozenset(mask.paths)
