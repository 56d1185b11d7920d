from __future__ import annotations

import pytest
from structlog.testing import capture_logs
from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.pipeline.access_log import AccessLog
from mesh.ids import RandomIds
from tests.support.edge_fakes import ORGANIZATION, key
from tests.support.pipeline_fakes import exchange, held_grant, request_head, route

SECRET = key()


def served():
    made = exchange(request_head("/a/b?secret=1", secret=SECRET))
    made.route, made.grant, made.origin = route(), held_grant(), "http://u"
    made.status, made.outcome, made.duration_us = 200, events.OUTCOME_ANSWERED, 1_500
    return made


def test_a_line_says_what_happened_and_names_neither_key_nor_query():
    with capture_logs() as lines:
        AccessLog(1.0).note(served())
    (line,) = lines
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["route"], line["status"]) == ("GET", "/a/b", "only", 200)
    assert (line["organization_id"], line["outcome"], line["duration_ms"]) == (str(ORGANIZATION), "answered", 1.5)
    assert SECRET not in str(lines)
    assert "secret" not in str(lines)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_the_rate_is_the_share_of_requests_with_a_line(rate):
    ids, made = RandomIds(), served()
    with capture_logs() as lines:
        for _ in range(2_000):
            made.id = ids.uuid7_bytes()
            AccessLog(rate).note(made)
    # Seven standard deviations.
    assert abs(len(lines) - 2_000 * rate) <= 7 * (2_000 * rate * (1 - rate)) ** 0.5
