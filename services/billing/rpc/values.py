"""Values that several of billing's messages hold."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from google.protobuf import timestamp_pb2
from tollway.billing.v1 import billing_service_pb2 as pb


def to_money(amount_minor: int, currency_code: str) -> pb.Money:
    """Write an amount."""
    return pb.Money(amount_minor=amount_minor, currency_code=currency_code)


def to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """Write an instant."""
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted


def to_decimal(value: Decimal) -> str:
    """Write a decimal without an exponent."""
    return f"{value:f}"
