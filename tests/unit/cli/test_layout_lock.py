"""One stack per data folder."""

from __future__ import annotations

import os

import pytest

from cli.stack import StackError
from cli.stack.layout import is_locked, locked


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        assert is_locked(path)
        with pytest.raises(StackError, match=str(os.getpid())), locked(path):
            pytest.fail("two holders")
        assert is_locked(path)


def test_nothing_is_left_behind(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        assert path.exists()
    assert not path.exists()
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)


def test_a_file_that_nobody_holds_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text("4242\n")
    assert not is_locked(path)
    with locked(path):
        assert path.read_text() == f"{os.getpid()}\n"
