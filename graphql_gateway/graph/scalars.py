"""Scalars that GraphQL lacks. None of them rounds, and none of them guesses a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

Int64 = NewType("Int64", int)
Decimal = NewType("Decimal", str)

INT64_MAX: Final = 2**63 - 1


def _read_int64(value: Any) -> Int64:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT64_MAX:
        raise GraphQLError("Int64 is an integer of at most 64 bits.")
    return Int64(value)


def _read_decimal(value: Any) -> Decimal:
    if not isinstance(value, str):
        raise GraphQLError('Decimal is a string such as "12.50".')
    return Decimal(value)


def _read_time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError):
        raise GraphQLError("DateTime is a time as in RFC 3339, for example 2026-01-31T00:00:00Z.") from None
    if time.tzinfo is None:
        raise GraphQLError("DateTime needs an offset from UTC, for example 2026-01-31T00:00:00Z.")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise GraphQLError("DateTime lies between the years 1 and 9999, in UTC as well.") from None


def _write_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


SCALARS: Final[dict[object, ScalarDefinition]] = {
    Int64: strawberry.scalar(
        name="Int64",
        description="An integer of 64 bits, a JSON number. Read it with care where numbers are doubles.",
        serialize=int,
        parse_value=_read_int64,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="An exact decimal number, as a string.",
        serialize=str,
        parse_value=_read_decimal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant as in RFC 3339, with its offset; answered in UTC.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=_write_time,
        parse_value=_read_time,
    ),
}
