"""Why a child failed, from the end of its log."""

from __future__ import annotations

import json

import pytest

from cli.stack.process import LINE_CHARACTERS_MAX, last_line, tail


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("first\nlast\n\n", "last"),
        ("TOLLWAY_REDIS_URL: Field required", "TOLLWAY_REDIS_URL: Field required"),
        (json.dumps({"event": "process_failed", "error": "port taken"}), "process_failed: port taken"),
        (
            json.dumps({"event": "process_failed", "exception": "Traceback\n  x\nValueError: no"}),
            "process_failed: ValueError: no",
        ),
        (json.dumps({"event": "stopped"}), "stopped"),
        ("{not json", "{not json"),
        ("x" * 1_000, "x" * LINE_CHARACTERS_MAX),
    ],
)
def test_last_line_says_what_happened(tmp_path, written, said):
    path = tmp_path / "log"
    path.write_text(written)
    assert last_line(path) == said


def test_a_silent_child_is_said_to_be_silent(tmp_path):
    path = tmp_path / "log"
    assert str(path) in last_line(path)
    path.touch()
    assert "nothing" in last_line(path)


def test_tail_reads_the_end_of_a_long_log_only(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert tail(path, 2) == ["line 99998", "line 99999"]
