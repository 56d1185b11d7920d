from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.events.v1 import usage_event_pb2 as events

from contract.events import STAGED_NAMES
from services.metering.event_parsing import INT64_MAX, hash_of, parse, traceparent_of
from services.metering.model import DeadReason, Poison
from tests.support.metering import API_KEY, ORGANIZATION, payload

NOW_US = 1_795_000_000_123_456
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def id_made_at(time_us: int) -> bytes:
    return (time_us // 1000).to_bytes(6, "big") + b"\x70\x00\x80" + b"\x01" * 7


def parsed(**changes: object) -> dict[str, Any]:
    own_times = {"id": id_made_at(NOW_US), "start_time_us": NOW_US}
    event = parse(payload(**(own_times | changes)), 7, NOW_US)
    assert isinstance(event, tuple)
    return dict(zip(STAGED_NAMES, event, strict=True))


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
    row = dict(zip(STAGED_NAMES, parse(sent, 7, NOW_US), strict=True))  # type: ignore[arg-type]
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
        "time_suspect": None,
        "claimed_start_time_us": None,
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


@pytest.mark.parametrize(
    ("changes", "reasons", "billed_at"),
    [
        ({"start_time_us": NOW_US + 2 * HOUR_US}, "start_in_future", NOW_US),
        ({"start_time_us": 2**63 - 1}, "start_in_future", NOW_US),
        ({"start_time_us": 0}, "start_in_past", NOW_US),
        ({"start_time_us": -(2**63)}, "start_in_past", NOW_US),
        ({"start_time_us": NOW_US - 35 * DAY_US}, "start_in_past", NOW_US),
        ({"id": id_made_at(NOW_US + 2 * HOUR_US), "start_time_us": NOW_US - 1}, "id_in_future", NOW_US - 1),
        ({"id": id_made_at(NOW_US - 35 * DAY_US), "start_time_us": NOW_US - 1}, "id_in_past", NOW_US - 1),
        ({"duration_us": -1, "start_time_us": NOW_US - 1}, "negative_duration", NOW_US - 1),
        ({"upstream_latency_us": -(2**63), "start_time_us": NOW_US - 1}, "negative_duration", NOW_US - 1),
        (
            {"id": id_made_at(0), "start_time_us": 0, "duration_us": -1},
            "start_in_past,id_in_past,negative_duration",
            NOW_US,
        ),
    ],
)
def test_no_time_is_a_reason_to_refuse_an_event_of_our_own_edge(
    changes: dict[str, object], reasons: str, billed_at: int
) -> None:
    row = parsed(**changes)
    assert (row["time_suspect"], row["start_time_us"], row["billable"]) == (reasons, billed_at, True)
    assert row["claimed_start_time_us"] == changes["start_time_us"]
    assert row["duration_us"] >= 0 <= row["upstream_latency_us"]


@pytest.mark.parametrize("offset_us", [-33 * DAY_US, -HOUR_US, 0, HOUR_US // 2])
def test_a_late_or_slightly_early_event_keeps_its_own_time(offset_us: int) -> None:
    row = parsed(id=id_made_at(NOW_US + offset_us), start_time_us=NOW_US + offset_us)
    assert (row["time_suspect"], row["start_time_us"]) == (None, NOW_US + offset_us)


def test_an_id_from_the_future_is_looked_up_in_every_week_that_is_remembered() -> None:
    assert parsed(id=id_made_at(NOW_US + 2 * HOUR_US))["id_time_us"] is None
    assert parsed(id=id_made_at(NOW_US - 35 * DAY_US))["id_time_us"] is not None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**48 - 1), st.integers(-(2**63), 2**63 - 1))
def test_whatever_the_times_say_the_event_is_billed_within_the_bounds(start_us: int, id_ms: int, duration: int) -> None:
    made = id_ms.to_bytes(6, "big") + b"\x70\x00\x80" + b"\x01" * 7
    row = parsed(id=made, start_time_us=start_us, duration_us=duration)
    assert NOW_US - 34 * DAY_US <= row["start_time_us"] <= NOW_US + HOUR_US
    assert row["duration_us"] >= 0
    assert (row["time_suspect"] is None) == (row["claimed_start_time_us"] is None)


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
