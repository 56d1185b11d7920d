from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract import wire

ID = bytes(range(16))
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
DECISION = ratelimit.Decision(route_id="r")
GIVE_BACK = ratelimit.GiveBack(route_id="r")

# Every constant of contract.wire: how it is used, and the message that must come of it.
FRAMED: dict[str, tuple[Callable[[bytes], bytes], Message]] = {
    "DECIDE_BATCH_ID": (lambda tag: tag + wire.varint(300), ratelimit.DecideRequest(batch_id=300)),
    "DECIDE_DECISION": (
        lambda tag: tag + wire.varint(DECISION.ByteSize()) + DECISION.SerializeToString(),
        ratelimit.DecideRequest(decisions=[DECISION]),
    ),
    "DECIDE_GIVE_BACK": (
        lambda tag: tag + wire.varint(GIVE_BACK.ByteSize()) + GIVE_BACK.SerializeToString(),
        ratelimit.DecideRequest(give_backs=[GIVE_BACK]),
    ),
    "DECISION_ID": (lambda tag: tag + ID, ratelimit.Decision(request_id=ID)),
    "EVENT_ID": (lambda tag: tag + ID, events.UsageEvent(id=ID)),
    "EVENT_TRACEPARENT": (lambda tag: tag + TRACEPARENT.encode(), events.UsageEvent(traceparent=TRACEPARENT)),
}


@pytest.mark.parametrize("name", FRAMED)
def test_what_is_framed_by_hand_is_what_protobuf_writes(name: str) -> None:
    frame, message = FRAMED[name]
    assert frame(getattr(wire, name)) == message.SerializeToString()


def test_every_tag_is_tied_to_its_field() -> None:
    assert {name for name, value in vars(wire).items() if name.isupper() and isinstance(value, bytes)} == set(FRAMED)


@given(st.integers(0, 1 << 62))
def test_varint_is_what_protobuf_reads(value: int) -> None:
    assert ratelimit.DecideRequest.FromString(wire.DECIDE_BATCH_ID + wire.varint(value)).batch_id == value


def test_a_type_that_nobody_frames_has_no_tag() -> None:
    with pytest.raises(KeyError):
        wire.tag(ratelimit.Verdict.DESCRIPTOR, "no_such_field")
