"""What a query may ask for, decided from its text before anything is resolved.

One walk over the operation, fragments included, keeps four sums and stops at the first that passes its limit, so the
walk itself is bounded: a fragment that spreads itself ends at `LEVELS_MAX`, fragments that double each other end at the
cost, because a spread is a selection too.

Cost: every selection costs 1, a field that calls a service `RPC_COST` more, and everything below a connection costs as
often as items are asked for (`first`). A field whose name the answer has already costs 1 more for each time before,
because validation compares every pair of them (the rule on overlapping fields): 240 of them took 0.2 s. Validation does
so in every fragment of the document, so one that no operation spreads is walked and counted as well. Introspection
nests deeper than honest queries; its fields are not held to the depth, only to the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FloatValueNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
)
from strawberry.extensions import SchemaExtension

from graphql_gateway import errors
from graphql_gateway.failure import Failure
from graphql_gateway.graph.relay import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from graphql_gateway.graph.rpcs import FIELDS
from mesh.rpc.errors import FieldViolation, InvalidFields, RpcError

RPC_COST: Final = 10
INTROSPECTING: Final = 0
"""Stands for the depth of everything below `__schema` and `__type`."""

PAGE_SIZE_DIGITS: Final = len(str(PAGE_SIZE_MAX))
NUMBER_LENGTH_MAX: Final = 40
LEVELS_MAX: Final = 40
"""Selections inside selections, fragments included."""

_INTROSPECTION: Final = "__"
_FIELDS_THAT_CALL: Final = frozenset(path.partition(".")[2] for path in FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """The limits of one query. Each is the largest value that is still served."""

    depth_max: int = 10
    aliases_max: int = 15
    directives_max: int = 10
    tokens_max: int = 1_000
    cost_max: int = 5_000
    rows_max: int = 2_000


class RowAllowance:
    """The rows that one document may still be answered.

    How many rows a sum of usage has is known only once the service has answered, so they are counted then, over all
    aliases: 10,000 rows with their keys keep the event loop busy for two seconds, and everybody else waits.

    Args:
        rows_max: So many in all.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._taken = 0

    def take(self, count: int) -> None:
        """Take rows before they are resolved.

        Raises:
            Failure: QUERY_TOO_COSTLY.
        """
        self._taken += count
        if self._taken > self._rows_max:
            raise Failure.of(errors.QueryTooCostly(metadata={"limit": str(self._rows_max), "counted": "rows"}))


@dataclass(slots=True)
class _Name:
    """A name in the answer: how often the query says it at this place, and the names below."""

    count: int = 0
    below: dict[str, _Name] = field(default_factory=dict)


class _Walk:
    """One pass over an operation."""

    def __init__(
        self,
        limits: QueryLimits,
        fragments: Mapping[str, FragmentDefinitionNode],
        variables: Mapping[str, Any],
        *,
        introspection: bool,
    ) -> None:
        self._limits = limits
        self._fragments = fragments
        self._variables = variables
        self._introspection = introspection
        self._defaults: dict[str, Any] = {}
        self._aliases = 0
        self._directives = 0
        self._cost = 0
        self._level = 0
        self._spread: set[str] = set()

    def operation(self, operation: OperationDefinitionNode) -> None:
        self._defaults = {one.variable.name.value: one.default_value for one in operation.variable_definitions or ()}
        for name, default in self._defaults.items():
            _check_numbers(default, name)
        self._count_directives(operation)
        self._selections(operation.selection_set, {}, depth=1, times=1)

    def fragment(self, fragment: FragmentDefinitionNode) -> None:
        """Count a fragment that was not counted where it is spread; of two with one name, only the last one was."""
        name = fragment.name.value
        if name in self._spread and self._fragments[name] is fragment:
            return
        self._spread.add(name)
        self._count_directives(fragment)
        self._selections(fragment.selection_set, {}, depth=1, times=1)

    def _selections(
        self, selections: SelectionSetNode | None, names: dict[str, _Name], *, depth: int, times: int
    ) -> None:
        if selections is None:
            return
        self._level += 1
        _check(self._level, LEVELS_MAX, errors.QueryTooDeep)
        for selection in selections.selections:
            self._selection(selection, names, depth=depth, times=times)
        self._level -= 1

    def _selection(self, selection: SelectionNode, names: dict[str, _Name], *, depth: int, times: int) -> None:
        self._count_directives(selection)
        self._spend(times)
        if isinstance(selection, FieldNode):
            self._field(selection, names, depth=depth, times=times)
        elif isinstance(selection, FragmentSpreadNode):
            fragment = self._fragments.get(selection.name.value)
            if fragment is not None:
                self._spread.add(fragment.name.value)
                self._count_directives(fragment)
                self._selections(fragment.selection_set, names, depth=depth, times=times)
        else:
            self._selections(getattr(selection, "selection_set", None), names, depth=depth, times=times)

    def _field(self, field: FieldNode, names: dict[str, _Name], *, depth: int, times: int) -> None:
        name = field.name.value
        if name in {"__schema", "__type"} and not self._introspection:
            raise Failure.of(errors.IntrospectionDisabled())
        here = names.setdefault(field.alias.value if field.alias else name, _Name())
        self._spend(here.count)
        here.count += 1
        if field.alias is not None:
            self._aliases += 1
            _check(self._aliases, self._limits.aliases_max, errors.TooManyAliases)
        for argument in field.arguments or ():
            _check_numbers(argument.value, argument.name.value)
        introspecting = depth == INTROSPECTING or name.startswith(_INTROSPECTION)
        if not introspecting:
            _check(depth, self._limits.depth_max, errors.QueryTooDeep)
        if depth == 1 and name in _FIELDS_THAT_CALL:
            self._spend(RPC_COST)
        below = INTROSPECTING if introspecting else depth + 1
        self._selections(field.selection_set, here.below, depth=below, times=times * self._page_size(field))

    def _page_size(self, field: FieldNode) -> int:
        """Return how many items a connection is asked for; 1 for any other field."""
        for argument in field.arguments or ():
            if argument.name.value == "first":
                return self._number(argument.value)
        is_connection = any(name in {"edges", "pageInfo"} for name in _names(field.selection_set))
        return PAGE_SIZE_DEFAULT if is_connection else 1

    def _number(self, value: Any) -> int:
        number: Any = PAGE_SIZE_MAX
        if isinstance(value, VariableNode):
            name = value.name.value
            default = self._defaults.get(name)
            if name not in self._variables and default is None:
                return PAGE_SIZE_DEFAULT
            number, value = self._variables.get(name), default if name not in self._variables else None
        if isinstance(value, IntValueNode):
            number = int(value.value) if len(value.value) <= PAGE_SIZE_DIGITS else PAGE_SIZE_MAX
        # A value that is no page size is refused by the resolver; here it must only not make anything cheaper.
        return number if isinstance(number, int) and 1 <= number <= PAGE_SIZE_MAX else PAGE_SIZE_MAX

    def _count_directives(self, node: Any) -> None:
        for directive in node.directives or ():
            self._directives += 1
            for argument in directive.arguments or ():
                _check_numbers(argument.value, argument.name.value)
        _check(self._directives, self._limits.directives_max, errors.TooManyDirectives)

    def _spend(self, cost: int) -> None:
        self._cost += cost
        _check(self._cost, self._limits.cost_max, errors.QueryTooCostly)


def _check(value: int, limit: int, error: type[RpcError]) -> None:
    if value > limit:
        raise Failure.of(error(metadata={"limit": str(limit)}))


def _check_numbers(value: Any, name: str) -> None:
    """Refuse numbers that are too long to be read; the library would fail on them instead of naming the argument."""
    if isinstance(value, IntValueNode | FloatValueNode):
        if len(value.value) > NUMBER_LENGTH_MAX:
            wrong = FieldViolation(field=name, description=f"must have at most {NUMBER_LENGTH_MAX} digits")
            raise Failure.of(InvalidFields(violations=[wrong]))
    elif isinstance(value, ListValueNode):
        for inner in value.values:
            _check_numbers(inner, name)
    elif isinstance(value, ObjectValueNode):
        for member in value.fields:
            _check_numbers(member.value, name)


def _names(selections: SelectionSetNode | None) -> Iterator[str]:
    for selection in selections.selections if selections else ():
        if isinstance(selection, FieldNode):
            yield selection.name.value


def check_query(
    document: DocumentNode,
    limits: QueryLimits,
    *,
    variables: Mapping[str, Any],
    introspection: bool,
) -> None:
    """Let a parsed query pass or refuse it. All operations and fragments of the document share the limits.

    Raises:
        Failure: What there is too much of.
    """
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    walk = _Walk(limits, fragments, variables, introspection=introspection)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            walk.operation(definition)
    for definition in document.definitions:
        if isinstance(definition, FragmentDefinitionNode):
            walk.fragment(definition)


def limiter(limits: QueryLimits, *, introspection: bool) -> type[SchemaExtension]:
    """Return the extension that checks every query between parsing and validating it."""

    class Limiter(SchemaExtension):
        def on_operation(self) -> Iterator[None]:
            self.execution_context.parse_options["max_tokens"] = limits.tokens_max
            yield

        def on_validate(self) -> Iterator[None]:
            document = self.execution_context.graphql_document
            if document is not None:
                variables = self.execution_context.variables or {}
                check_query(document, limits, variables=variables, introspection=introspection)
            yield

    return Limiter
