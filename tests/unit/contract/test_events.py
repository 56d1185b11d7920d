from __future__ import annotations

import re
from pathlib import Path

from contract import events
from services.metering.event_parsing import parse
from tests.support.metering import payload

ROOT = Path(__file__).resolve().parents[3]


def test_the_table_is_the_only_place_that_lists_the_columns():
    assert len(set(events.STAGED_NAMES)) == len(events.STAGED_NAMES)
    assert [line.split()[0] for line in events.staging_definition().split(",\n")] == list(events.STAGED_NAMES)
    assert events.stored_columns().split(", ") == list(events.STORED_NAMES)
    assert events.stored_values().count(", ") == events.stored_columns().count(", ")


def test_every_stored_column_is_in_a_migration_and_every_migrated_column_in_the_table():
    text = "\n".join(path.read_text() for path in sorted((ROOT / "migrations/metering").glob("*.up.sql")))
    created = re.search(r"CREATE TABLE usage_events \((.*?)CONSTRAINT", text, re.DOTALL)[1]
    columns = [line.split()[0] for line in created.strip().splitlines()]
    columns += re.findall(r"ADD COLUMN (\w+)", "".join(re.findall(r"ALTER TABLE usage_events (.*?);", text, re.DOTALL)))
    assert columns == list(events.STORED_NAMES)


def test_the_parser_makes_a_value_for_each_column():
    assert len(parse(payload(), 0, 1_790_000_000_000_000)) == len(events.COLUMNS)
