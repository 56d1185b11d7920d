"""What the stack writes where, and what a reset deletes."""

from __future__ import annotations

from cli.stack.layout import Layout


def test_reset_deletes_what_the_stack_wrote_and_nothing_else(tmp_path):
    layout = Layout(data_dir=tmp_path / "var")
    layout.create()
    mine = layout.data_dir / "notes.txt"
    mine.write_text("keep")
    layout.lock.touch()
    for written in (layout.secrets, layout.stack_file, layout.log("edge"), layout.mail / "1.eml", layout.edge / "j"):
        written.write_text("x")
    (layout.postgres / "data").mkdir(parents=True)
    layout.delete()
    assert sorted(path.name for path in layout.data_dir.iterdir()) == ["lock", "notes.txt"]


def test_creating_it_again_keeps_what_is_there(tmp_path):
    layout = Layout(data_dir=tmp_path)
    layout.create()
    (layout.edge / "journal").write_text("x")
    layout.create()
    assert (layout.edge / "journal").read_text() == "x"
