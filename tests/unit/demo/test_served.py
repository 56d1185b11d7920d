"""What the upstream counted."""

from __future__ import annotations

from demo.upstream.served import Served


def test_requests_are_counted_by_id_at_start_and_at_the_end_of_the_answer():
    served = Served()
    served.started("a", "GET", "/")
    served.started("a", "GET", "/")
    served.started("", "GET", "/")
    served.answered("a", 200)
    assert served.as_json() == {
        "count": 3,
        "answered_count": 1,
        "dropped_count": 0,
        "by_request_id": {"a": 2},
        "answered_by_request_id": {"a": 1},
    }


def test_memory_is_bounded_and_what_was_dropped_is_said():
    served = Served(request_ids_max=2)
    for request_id in ("a", "b", "c"):
        served.started(request_id, "GET", "/")
    counts = served.as_json()
    assert counts["by_request_id"] == {"b": 1, "c": 1}
    assert (counts["count"], counts["dropped_count"]) == (3, 1)


def test_reset_forgets_counts_and_keeps_the_log(tmp_path):
    log = tmp_path / "served.log"
    served = Served(log_path=log)
    served.started("a\tb", "GET", "/echo")
    served.answered("a\tb", 200)
    served.reset()
    assert served.as_json()["count"] == 0
    assert log.read_text() == "started\ta b\tGET\t/echo\nanswered\ta b\t200\n"
