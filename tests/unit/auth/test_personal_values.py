"""What tells who somebody is is taken out of an audit entry, put back in for readers, and gone once it was erased."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.model import AuditEntry
from services.auth.personal_values import ERASED, PersonalValue, put_back, set_aside

PERSON = UUID(int=7)
WORD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["bob@acme.example", "Bob <bob@acme.example>, ann@x", "@", "a@b@c", "x@", "\u00fc@\u00f6.example.", "(name)"]
    ),
)
DOCUMENT = st.dictionaries(
    st.sampled_from(["name", "email", "person_name", "inviter_name", "role", "a@b", "x"]),
    st.recursive(st.none() | st.booleans() | st.integers() | WORD, lambda x: st.lists(x, max_size=3), max_leaves=5),
)
MAYBE = st.none() | DOCUMENT


def entry(**values: Any) -> AuditEntry:
    shown: dict[str, Any] = {"actor": "billing", "resource": "organization/1", "details": {}}
    return AuditEntry(
        audit_entry_id=UUID(int=1),
        organization_id=UUID(int=2),
        action="member.invite",
        create_time=datetime(2024, 1, 1, tzinfo=UTC),
        **shown | values,
    )


ENTRIES = st.builds(
    entry,
    actor=WORD,
    resource=st.sampled_from(["organization/1", f"person/{PERSON}", "person/unknown", "x/a@b"]),
    details=DOCUMENT,
    before=MAYBE,
    after=MAYBE,
)


@given(ENTRIES)
def test_an_entry_holds_no_address_and_reads_as_before_until_it_is_erased(written: AuditEntry) -> None:
    taken = set_aside(written)
    stored = taken.entry
    assert "@" not in json.dumps([stored.actor, stored.resource, stored.details, stored.before, stored.after])
    values = {number: each.value for number, each in enumerate(taken.values, start=1)}
    assert put_back(stored, values, len(values)) == written
    erased = put_back(stored, {}, len(values))
    assert "@" not in json.dumps([erased.actor, erased.resource, erased.details, erased.before, erased.after])


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        ({"after": {"email": "Bob@acme.example", "role": "admin"}}, ["Bob@acme.example"]),
        (
            {"details": {"reason": "asked by bob@acme.example, twice (ann@x.example)."}},
            ["bob@acme.example", "ann@x.example"],
        ),
        ({"actor": '"b b"@acme.example'}, ['"b b"@acme.example']),
        ({"details": {"inviter_name": "Bob B.", "name": "a key"}}, ["Bob B."]),
        ({"details": {"list": [{"to": "a@b"}]}}, ["a@b"]),
    ],
)
def test_addresses_and_names_of_people_are_taken_out_whole(values: dict[str, Any], taken: list[str]) -> None:
    assert [each.value for each in set_aside(entry(**values)).values] == taken


def test_what_an_entry_about_a_person_holds_is_that_persons() -> None:
    taken = set_aside(entry(resource=f"person/{PERSON}", before={"name": "Bob"}, after={"name": "Rob", "role": "x"}))
    assert list(taken.values) == [
        PersonalValue(value="Bob", person_id=PERSON),
        PersonalValue(value="Rob", person_id=PERSON),
    ]
    assert taken.entry.after == {"name": "(personal 2)", "role": "x"}


def test_a_mark_that_somebody_typed_is_theirs() -> None:
    typed = entry(details={"name": "(personal 1)"})
    assert put_back(typed, {}, 0) == typed
    taken = set_aside(replace(typed, after={"email": "a@b"}))
    assert put_back(taken.entry, {}, 1).after == {"email": ERASED}
