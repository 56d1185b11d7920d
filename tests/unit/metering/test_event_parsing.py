from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.events.v1 import usage_event_pb2 as events

from services.metering.event_parsing import INT64_MAX, STAGED_COLUMNS, hash_of, parse, traceparent_of
from services.metering.model import DeadReason, Poison
from tests.support.metering import API_KEY, ORGANIZATION, payload

NOW_US = time.time_ns() // 1000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def id_made_at(time_us: int) -> bytes:
    return (time_us // 1000).to_bytes(6, "big") + b"\x70\x00\x80" + b"\x01" * 7


def parsed(**changes: object) -> dict[str, Any]:
    event = parse(payload(**changes), 7, NOW_US)
    assert isinstance(event, tuple)
    return dict(zip(STAGED_COLUMNS, event, strict=True))


def test_every_field_reaches_its_column() -> None:
    event_id = id_made_at(NOW_US)
    sent = payload(
        id=event_id,
        start_time_us=NOW_US,
        external_subject="alice",
        quantities={"tokens": "12.5"},
        properties={"model": "m", "a": "b"},
        cost_units=4,
    )
    row = dict(zip(STAGED_COLUMNS, parse(sent, 7, NOW_US), strict=True))  # type: ignore[arg-type]
    assert row == {
        "organization_id": ORGANIZATION,
        "event_id": uuid.UUID(bytes=event_id),
        "start_time_us": NOW_US,
        "api_key_id": API_KEY,
        "route_id": "orders",
        "method": "GET",
        "path_template": "/orders/{id}",
        "status": 200,
        "outcome": events.OUTCOME_ANSWERED,
        "duration_us": 1_500,
        "upstream_latency_us": 1_000,
        "request_bytes": 10,
        "response_bytes": 200,
        "cost_units": 4,
        "test_mode": False,
        "billable": True,
        "external_subject": "alice",
        "quantities": '{"tokens": "12.5"}',
        "properties": '{"a": "b", "model": "m"}',
        "payload_hash": hash_of(sent),
        "id_time_us": NOW_US // 1000 * 1000,
        "ordinal": 7,
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"organization_id": b"short"}, "organization_id"),
        ({"api_key_id": b""}, "api_key_id"),
        ({"id": b"\x01" * 15}, "id"),
        ({"id": id_made_at(NOW_US + 2 * HOUR_US)}, "id"),
        ({"start_time_us": NOW_US + 2 * HOUR_US}, "start_time_us"),
        ({"start_time_us": NOW_US - 800 * DAY_US}, "start_time_us"),
        ({"duration_us": -1}, "duration_us"),
        ({"upstream_latency_us": -1}, "upstream_latency_us"),
        ({"request_bytes": INT64_MAX + 1}, "request_bytes"),
        ({"response_bytes": INT64_MAX + 1}, "response_bytes"),
        ({"status": 99}, "status"),
        ({"status": 600}, "status"),
        ({"outcome": 0}, "outcome"),
        ({"outcome": 99}, "outcome"),
        ({"cost_units": 0}, "cost_units"),
        ({"route_id": "r" * 201}, "route_id"),
        ({"method": "M" * 33}, "method"),
        ({"path_template": "p" * 2_049}, "path_template"),
        ({"external_subject": "s" * 257}, "external_subject"),
        ({"route_id": "a\x00"}, "text"),
        ({"external_subject": "\x00"}, "text"),
        ({"quantities": {"tokens": "NaN"}}, "quantities"),
        ({"quantities": {"tokens": "1e5"}}, "quantities"),
        ({"quantities": {str(n): "1" for n in range(65)}}, "quantities"),
        ({"properties": {"k" * 101: "v"}}, "properties"),
        ({"properties": {"k": "v" * 2_049}}, "properties"),
        ({"properties": {"k": "\x00"}}, "properties"),
    ],
)
def test_what_cannot_be_stored_is_poison_and_says_where(changes: dict[str, object], field: str) -> None:
    poison = parse(payload(**changes), 0, NOW_US)
    assert isinstance(poison, Poison)
    assert poison.reason is DeadReason.INVALID
    assert field in poison.detail


def test_all_that_is_wrong_is_told_together() -> None:
    poison = parse(payload(status=1, cost_units=0, route_id="\x00"), 0, NOW_US)
    assert isinstance(poison, Poison)
    assert [part.split(":")[0] for part in poison.detail.split(", ")] == ["status", "cost_units", "text"]


def test_an_id_made_before_repetitions_can_be_told_is_too_old() -> None:
    assert parsed(id=id_made_at(NOW_US - 33 * DAY_US))
    poison = parse(payload(id=id_made_at(NOW_US - 35 * DAY_US)), 0, NOW_US)
    assert isinstance(poison, Poison)
    assert poison.reason is DeadReason.TOO_OLD


def test_an_id_that_does_not_tell_its_time_is_taken_and_marked() -> None:
    assert parsed(id=uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8").bytes)["id_time_us"] is None


def test_an_event_without_an_organization_is_nothing() -> None:
    assert parse(payload(organization_id=b""), 0, NOW_US) is None


@pytest.mark.parametrize(
    ("outcome", "status", "test_mode", "billable"),
    [
        (events.OUTCOME_ANSWERED, 404, False, True),
        (events.OUTCOME_ANSWERED, 503, False, False),
        (events.OUTCOME_REFUSED, 429, False, False),
        (events.OUTCOME_CACHED, 200, True, False),
    ],
)
def test_what_is_billed_follows_the_shared_table(outcome: int, status: int, test_mode: bool, billable: bool) -> None:
    assert parsed(outcome=outcome, status=status, test_mode=test_mode)["billable"] is billable


def test_the_trace_of_a_sampled_event_is_found() -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    assert traceparent_of(payload(traceparent=traceparent)) == traceparent
    assert traceparent_of(payload()) == ""


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise(junk: bytes) -> None:
    assert parse(junk, 0, NOW_US) is None or isinstance(parse(junk, 0, NOW_US), (Poison, tuple))


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_event_never_raises(position: int, value: int) -> None:
    damaged = bytearray(payload(properties={"a": "b"}))
    damaged[position % len(damaged)] = value
    parse(bytes(damaged), 0, NOW_US)
