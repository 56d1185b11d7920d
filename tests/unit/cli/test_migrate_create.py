"""`tollway migrate create`."""

from __future__ import annotations

import pytest

from cli.commands.migrate import create_files
from cli.stack import StackError


def test_the_next_pair_of_files_is_made(tmp_path):
    assert [path.name for path in create_files(tmp_path, "auth", "first")] == [
        "0001_first.up.sql",
        "0001_first.down.sql",
    ]
    second = create_files(tmp_path, "auth", "second_thing")
    assert [path.name for path in second] == ["0002_second_thing.up.sql", "0002_second_thing.down.sql"]
    assert all(path.read_text().startswith("-- ") for path in second)


@pytest.mark.parametrize("name", ["", "Upper", "dash-ed", "../../etc", "1st"])
def test_wrong_names_are_refused(tmp_path, name):
    with pytest.raises(StackError):
        create_files(tmp_path, "auth", name)
