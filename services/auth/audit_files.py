"""Audit entries as files: JSON Lines, or comma-separated values that a spreadsheet may open.

**Spreadsheets** take a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula or for something
to run, and what stands in the log was in part chosen by strangers. Such a cell gets an apostrophe in front, which makes
it text (OWASP, "CSV Injection"); so does one that begins with the full-width twins of those signs, or with spaces and
then one of them. Every cell is quoted, so that a spreadsheet that separates by semicolons finds none outside of quotes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from services.auth.model import AuditEntry

COLUMNS: Final = (
    "audit_entry_id",
    "organization_id",
    "create_time",
    "actor",
    "actor_kind",
    "action",
    "resource",
    "address",
    "request_id",
    "details",
    "before",
    "after",
)
_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class AuditFormat(Enum):
    """What a file is written as."""

    JSON_LINES = "jsonl"
    CSV = "csv"

    def head(self) -> bytes:
        """Return what stands before the first entry."""
        return _csv([COLUMNS]) if self is AuditFormat.CSV else b""

    def write(self, entries: Sequence[AuditEntry]) -> bytes:
        """Return entries as lines of the file, in UTF-8."""
        if self is AuditFormat.CSV:
            return _csv([[_cell(value) for value in _values(entry).values()] for entry in entries])
        return b"".join(_dump(_values(entry)).encode() + b"\n" for entry in entries)


def _values(entry: AuditEntry) -> dict[str, Any]:
    return {
        "audit_entry_id": str(entry.audit_entry_id),
        "organization_id": str(entry.organization_id),
        "create_time": entry.create_time.isoformat(),
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "action": entry.action,
        "resource": entry.resource,
        "address": entry.address,
        "request_id": entry.request_id,
        "details": entry.details,
        "before": entry.before,
        "after": entry.after,
    }


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else _dump(value)
    return f"'{text}" if not _FORMULA.isdisjoint((text[:1], text.lstrip()[:1])) else text


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(rows)
    return written.getvalue().encode()


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
