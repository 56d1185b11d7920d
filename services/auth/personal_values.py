"""Takes out of an audit entry what tells who somebody is, and puts it back in for readers.

An entry can never be changed, and a person can be erased. So an entry holds ids, and in place of an e-mail address or a
person's name a mark, `(personal 1)`; the value itself stands in `audit_personal_values`, from which erasing removes it.
Whoever reads the entry then reads `(erased)`.

Whatever holds an `@` is taken for an e-mail address, wherever it stands: an entry with an `@` is refused by the table.
A name cannot be told from its looks. It is one by its field: `name` of a person, and the fields of `NAMES` everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from services.auth.model import AuditEntry

ERASED: Final = "(erased)"
WITHHELD: Final = "(withheld)"
"""Stands for what tells who somebody else is, in an export of one person."""
NAMES: Final = frozenset({"person_name", "inviter_name"})
_OF_A_PERSON: Final = frozenset({"name", "email", "new_email", "old_email"})
_PERSON: Final = "person/"
_ADDRESS: Final = re.compile(r"""[^\s<>()\[\],;:"']*@(?:[^\s<>()\[\],;:"']*[^\s<>()\[\],;:"'.])?""")
_MARK: Final = re.compile(r"\(personal ([0-9]{1,4})\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalValue:
    """A value that was taken out; the person is known where the entry is about them."""

    value: str
    person_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An entry with marks, and the values that the marks stand for: the first is that of `(personal 1)`."""

    entry: AuditEntry
    values: Sequence[PersonalValue]


def set_aside(entry: AuditEntry) -> SetAside:
    """Take what is personal out of an entry."""
    taking = _Taking(_person_of(entry))
    taken_from = replace(
        entry,
        # A typed address may be anything with an @ in it, spaces included.
        actor=taking.whole(entry.actor) if "@" in entry.actor else entry.actor,
        resource=taking.text(entry.resource),
        details=taking.document(entry.details),
        before=taking.document(entry.before),
        after=taking.document(entry.after),
    )
    return SetAside(entry=taken_from, values=tuple(taking.values))


def put_back(entry: AuditEntry, values: Mapping[int, str], count: int, *, gone: str = ERASED) -> AuditEntry:
    """Put values back in; the marks of those that are gone say so.

    Args:
        entry: As it is stored.
        values: What is left of the values, by number.
        count: How many were taken out; only so many marks are ours.
        gone: What stands for the others.
    """
    if not count:
        return entry

    def put(text: str) -> str:
        return _MARK.sub(lambda mark: values.get(int(mark[1]), gone) if 1 <= int(mark[1]) <= count else mark[0], text)

    return replace(
        entry,
        actor=put(entry.actor),
        resource=put(entry.resource),
        details=_map_texts(entry.details, put),
        before=_map_texts(entry.before, put),
        after=_map_texts(entry.after, put),
    )


class _Taking:
    """Takes values out and numbers them."""

    def __init__(self, person_id: UUID | None) -> None:
        self._person_id = person_id
        self.values: list[PersonalValue] = []

    def whole(self, value: str) -> str:
        self.values.append(PersonalValue(value=value, person_id=self._person_id))
        return f"(personal {len(self.values)})"

    def text(self, text: str) -> str:
        return _ADDRESS.sub(lambda found: self.whole(found[0]), text)

    def document(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._field(str(key), held) for key, held in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.document(held) for held in value]
        return value

    def _field(self, key: str, value: Any) -> Any:
        is_personal = key in NAMES or (self._person_id is not None and key in _OF_A_PERSON)
        return self.whole(value) if is_personal and isinstance(value, str) and value else self.document(value)


def _person_of(entry: AuditEntry) -> UUID | None:
    if not entry.resource.startswith(_PERSON):
        return None
    try:
        return UUID(entry.resource.removeprefix(_PERSON))
    except ValueError:
        return None


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _map_texts(held, change) for key, held in value.items()}
    if isinstance(value, list):
        return [_map_texts(held, change) for held in value]
    return value
