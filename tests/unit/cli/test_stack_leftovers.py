"""After a stack that was killed."""

from __future__ import annotations

import json
import os
import subprocess

from cli.stack import stack_file
from cli.stack.layout import Layout


def test_a_clean_folder_needs_nothing(tmp_path):
    said = []
    stack_file.clear_leftovers(Layout(data_dir=tmp_path), said.append)
    assert said == []


def test_a_stale_file_is_told_and_removed(tmp_path):
    layout = Layout(data_dir=tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    layout.stack_file.write_text(json.dumps({"version": 1, "pids": {"edge": [ended.pid]}}))
    said = []
    stack_file.clear_leftovers(layout, said.append)
    assert len(said) == 1
    assert not layout.stack_file.exists()


def test_a_damaged_file_does_not_stop_the_next_start(tmp_path):
    layout = Layout(data_dir=tmp_path)
    layout.stack_file.write_text("{")
    stack_file.clear_leftovers(layout, lambda _text: None)
    assert not layout.stack_file.exists()


def test_a_number_that_somebody_else_got_since_is_not_waited_for(tmp_path):
    layout = Layout(data_dir=tmp_path)
    layout.stack_file.write_text("{}")
    os.utime(layout.stack_file, (1_000, 1_000))
    assert not stack_file._is_ours(os.getpid(), layout)
    os.utime(layout.stack_file)
    assert stack_file._is_ours(os.getpid(), layout)
