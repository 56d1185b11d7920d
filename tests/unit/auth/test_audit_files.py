"""Audit entries as files: every value comes back as it was, and no spreadsheet runs any of them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.audit_files import COLUMNS, AuditFormat
from services.auth.model import AuditEntry

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DOCUMENT = st.dictionaries(TEXT, st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists, max_leaves=4))
ENTRY = st.builds(
    AuditEntry,
    audit_entry_id=st.uuids(),
    organization_id=st.uuids(),
    actor=TEXT,
    action=TEXT,
    resource=TEXT,
    details=DOCUMENT,
    create_time=st.datetimes(timezones=st.just(UTC)),
    actor_kind=TEXT,
    address=TEXT,
    request_id=TEXT,
    before=st.none() | DOCUMENT,
    after=st.none() | DOCUMENT,
)
SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


def values(entry: AuditEntry) -> dict[str, Any]:
    shown = {name: getattr(entry, name) for name in COLUMNS}
    return {
        name: str(value) if isinstance(value, UUID) else value.isoformat() if isinstance(value, datetime) else value
        for name, value in shown.items()
    }


@given(st.lists(ENTRY, max_size=5))
def test_json_lines_read_back_as_they_were(entries: list[AuditEntry]) -> None:
    written = AuditFormat.JSON_LINES.head() + AuditFormat.JSON_LINES.write(entries)
    assert [json.loads(line) for line in written.decode().split("\n")[:-1]] == [values(entry) for entry in entries]


@given(st.lists(ENTRY, max_size=5))
def test_comma_separated_values_read_back_as_they_were_but_for_the_mark(entries: list[AuditEntry]) -> None:
    written = AuditFormat.CSV.head() + AuditFormat.CSV.write(entries)
    head, *rows = csv.reader(io.StringIO(written.decode(), newline=""))
    assert tuple(head) == COLUMNS
    for row, entry in zip(rows, entries, strict=True):
        for cell, value in zip(row, values(entry).values(), strict=True):
            text = value if isinstance(value, str) else "" if value is None else None
            assert not {cell[:1], cell.lstrip()[:1]} & set(SIGNS)
            if text is not None:
                assert cell in {text, f"'{text}"}
            else:
                assert json.loads(cell) == value


@pytest.mark.parametrize(
    "text",
    ['=HYPERLINK("http://x.example","y")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1"],
)
def test_what_a_spreadsheet_would_run_is_marked_as_text(text: str) -> None:
    entry = AuditEntry(
        audit_entry_id=UUID(int=1),
        organization_id=UUID(int=2),
        actor=text,
        action="api_key.create",
        resource="r",
        details={},
        create_time=datetime(2024, 1, 1, tzinfo=UTC),
    )
    (row,) = csv.reader(io.StringIO(AuditFormat.CSV.write([entry]).decode(), newline=""))
    assert row[COLUMNS.index("actor")] == f"'{text}"
