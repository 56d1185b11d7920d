"""docs/requirements.md: every row of a finished area names a test or a decision that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "requirements.md"
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \| (.*?) \|$", re.MULTILINE)
REFERENCE = re.compile(r"`([\w./-]+\.(?:py|md|yml|yaml|example))(?:::(\w+))?`")


def areas():
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: ROW.findall(part) for part in parts}


def test_every_area_has_rows():
    assert areas()
    assert all(rows for name, rows in areas().items())


def test_a_finished_areas_rows_name_what_shows_them():
    finished = {name: rows for name, rows in areas().items() if name.endswith("(finished)")}
    assert finished
    bare = [row[0] for rows in finished.values() for row in rows if not REFERENCE.search(row[2])]
    assert bare == []


def test_what_is_named_exists():
    missing = []
    for rows in areas().values():
        for identifier, _, shown_by in rows:
            for path, function in REFERENCE.findall(shown_by):
                file = ROOT / path
                if not file.exists() or (function and f"def {function}(" not in file.read_text()):
                    missing.append(f"{identifier}: {path}::{function}")
    assert missing == []
