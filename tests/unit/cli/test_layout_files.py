"""Small files are old or new, never half."""

from __future__ import annotations

import json
import stat

import pytest

from cli.stack.layout import write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    write_json(path, {"a": 1}, mode=0o600)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
