"""One stack per data folder."""

from __future__ import annotations

import os

import pytest

from cli.stack import lock
from cli.stack.errors import StackError


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    path = tmp_path / "lock"
    with lock.held(path):
        assert lock.is_held(path)
        with pytest.raises(StackError, match=str(os.getpid())), lock.held(path):
            pytest.fail("two holders")
        assert lock.is_held(path)


def test_nothing_is_left_behind(tmp_path):
    path = tmp_path / "lock"
    with lock.held(path):
        assert path.exists()
    assert not path.exists()
    assert not lock.is_held(path)
    with lock.held(path):
        assert lock.is_held(path)


def test_a_file_that_nobody_holds_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text("4242\n")
    assert not lock.is_held(path)
    with lock.held(path):
        assert path.read_text() == f"{os.getpid()}\n"
