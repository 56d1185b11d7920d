"""What no field of any request may hold, read from the descriptors, so that RPCs written later are covered.

A handler checks what its fields mean. This checks what none of them can mean, because PostgreSQL, JSON or Python's
calendar would stumble over it: a NUL in a string, a string without an end, an instant outside the years 1 to 9999, a
number that is none, an enum value that the contract does not know.

One plan per message type says which fields are worth a look, so a message without any costs nothing. Streams of
requests are left out: they come from Tollway's own processes, on the request path, and in batches of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, assert_never

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mesh.rpc.errors import Violations

STRING_LENGTH_MAX: Final = 8_192
SECONDS_MIN: Final = -62_135_596_800
SECONDS_MAX: Final = 253_402_300_799
DURATION_SECONDS_MAX: Final = 315_576_000_000
NANOS_PER_SECOND: Final = 1_000_000_000
MICROS_PER_SECOND: Final = 1_000_000
VIOLATIONS_MAX: Final = 20
KEY_LENGTH_SHOWN_MAX: Final = 50
_MICROS_SUFFIX: Final = "_time_us"

Problem = Callable[[Any], str]
"""Returns what is wrong with a value; empty where nothing is."""


class _Shape(Enum):
    """How a field holds its values."""

    SCALAR = auto()
    MESSAGE = auto()
    REPEATED = auto()
    MAP_KEYS = auto()
    MAP_VALUES = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How one field is looked at: by a check of its values, or by the plan of the messages that it holds."""

    name: str
    shape: _Shape
    problem: Problem | None = None
    message: Descriptor | None = None


class FieldChecks:
    """Checks messages; makes each type's plan once."""

    def __init__(self) -> None:
        self._plans: dict[str, tuple[_Look, ...]] = {}

    def check(self, request: Message) -> None:
        """Look at every field of a request.

        Raises:
            InvalidFields: With the path and the fault of each wrong field, at most `VIOLATIONS_MAX`.
        """
        violations = Violations()
        for count, (path, problem) in enumerate(self._walk(request, "")):
            violations.add(path, problem)
            if count + 1 == VIOLATIONS_MAX:
                break
        violations.raise_if_any()

    def _walk(self, message: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for look in self._plan(message.DESCRIPTOR):
            for path, value in _values(message, look, prefix):
                if look.problem is not None:
                    problem = look.problem(value)
                    if problem:
                        yield path, problem
                else:
                    yield from self._walk(value, f"{path}.")

    def _plan(self, descriptor: Descriptor) -> tuple[_Look, ...]:
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = tuple(look for field in descriptor.fields for look in _looks(field))
            self._plans[descriptor.full_name] = plan
        return plan


def _looks(field: FieldDescriptor) -> Iterator[_Look]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        for look in _looks(entry.fields_by_name["key"]):
            yield _Look(name=field.name, shape=_Shape.MAP_KEYS, problem=look.problem)
        for look in _looks(entry.fields_by_name["value"]):
            yield _Look(name=field.name, shape=_Shape.MAP_VALUES, problem=look.problem, message=look.message)
        return
    problem = _problem_of(field)
    if problem is not None or entry is not None:
        shape = _Shape.REPEATED if field.is_repeated else _Shape.MESSAGE if entry is not None else _Shape.SCALAR
        yield _Look(name=field.name, shape=shape, problem=problem, message=entry)


def _problem_of(field: FieldDescriptor) -> Problem | None:
    if field.message_type is not None:
        return _PROBLEMS_OF_MESSAGES.get(field.message_type.full_name)
    if field.enum_type is not None:
        known = frozenset(field.enum_type.values_by_number)
        return lambda number: "" if number in known else "is not a value of this enum"
    if field.name.endswith(_MICROS_SUFFIX):
        return _micros_problem
    return _PROBLEMS_OF_TYPES.get(field.type)


def _values(message: Any, look: _Look, prefix: str) -> Iterator[tuple[str, Any]]:
    path, value = prefix + look.name, getattr(message, look.name)
    match look.shape:
        case _Shape.SCALAR:
            yield path, value
        case _Shape.MESSAGE:
            if message.HasField(look.name):
                yield path, value
        case _Shape.REPEATED:
            yield from ((f"{path}[{index}]", each) for index, each in enumerate(value))
        case _Shape.MAP_KEYS:
            yield from ((f"{path}[{_shown(key)}]", key) for key in value)
        case _Shape.MAP_VALUES:
            yield from ((f"{path}[{_shown(key)}]", value[key]) for key in value)
        case _:
            assert_never(look.shape)


def _shown(key: object) -> str:
    return repr(str(key)[:KEY_LENGTH_SHOWN_MAX])


def _string_problem(text: str) -> str:
    if "\0" in text:
        return "must not contain NUL"
    return "" if len(text) <= STRING_LENGTH_MAX else f"must have at most {STRING_LENGTH_MAX} characters"


def _float_problem(number: float) -> str:
    return "" if math.isfinite(number) else "must be a finite number"


def _timestamp_problem(instant: Any) -> str:
    right = SECONDS_MIN <= instant.seconds <= SECONDS_MAX and 0 <= instant.nanos < NANOS_PER_SECOND
    return "" if right else "must lie in the years 1 to 9999"


def _duration_problem(duration: Any) -> str:
    right = abs(duration.seconds) <= DURATION_SECONDS_MAX and abs(duration.nanos) < NANOS_PER_SECOND
    return "" if right else "must be at most 10,000 years"


def _micros_problem(micros: int) -> str:
    right = SECONDS_MIN * MICROS_PER_SECOND <= micros <= SECONDS_MAX * MICROS_PER_SECOND
    return "" if right else "must lie in the years 1 to 9999"


_PROBLEMS_OF_MESSAGES: Final[dict[str, Problem]] = {
    "google.protobuf.Timestamp": _timestamp_problem,
    "google.protobuf.Duration": _duration_problem,
}
_PROBLEMS_OF_TYPES: Final[dict[int, Problem]] = {
    FieldDescriptor.TYPE_STRING: _string_problem,
    FieldDescriptor.TYPE_DOUBLE: _float_problem,
    FieldDescriptor.TYPE_FLOAT: _float_problem,
}
