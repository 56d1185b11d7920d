"""Whom root lends to PostgreSQL, and where that user cannot go."""

from __future__ import annotations

import pytest

from cli.stack import StackError, process
from cli.stack.process import RunAs

STRANGER = RunAs(uid=54_321, gid=54_321, name="stranger")


def test_an_ordinary_user_runs_it_as_themselves(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert process.choose_user() == RunAs()
    assert RunAs().popen_arguments() == {}


def test_root_lends_an_unprivileged_user_without_its_groups(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    chosen = process.choose_user()
    assert chosen.uid not in (0, None)
    assert chosen.popen_arguments()["extra_groups"] == []


def test_a_machine_without_such_a_user_is_told_so(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(process, "USER_NAMES", ("no-such-user",))
    with pytest.raises(StackError, match="no-such-user"):
        process.choose_user()


def test_the_first_closed_folder_on_the_way_is_found(tmp_path):
    tmp_path.chmod(0o755)
    inner = tmp_path / "closed" / "open"
    inner.mkdir(parents=True)
    open_all_the_way = STRANGER.first_closed(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    found = STRANGER.first_closed(inner)
    assert found == (open_all_the_way or tmp_path / "closed")
    assert RunAs().first_closed(inner) is None


def test_owner_and_group_bits_count_for_owner_and_group(tmp_path):
    status = tmp_path.stat()
    owner = RunAs(uid=status.st_uid, gid=1, name="owner")
    group = RunAs(uid=54_321, gid=status.st_gid, name="group")
    tmp_path.chmod(0o710)
    status = tmp_path.stat()
    assert (owner._may_enter(status), group._may_enter(status), STRANGER._may_enter(status)) == (True, True, False)
