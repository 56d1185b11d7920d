"""What a query may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import get_introspection_query, parse

from graphql_gateway.failure import Failure
from graphql_gateway.graph.cost import QueryLimits, check_query

LIMITS = QueryLimits(depth_max=5, aliases_max=3, directives_max=2, cost_max=500)


def check(query: str, *, limits: QueryLimits = LIMITS, introspection: bool = False, **variables: Any) -> None:
    check_query(parse(query), limits, variables=variables, introspection=introspection)


def refusal(query: str, **arguments: Any) -> str:
    with pytest.raises(Failure) as caught:
        check(query, **arguments)
    return caught.value.reason


def test_an_honest_query_passes() -> None:
    check("{ viewer { organization { name } } apiKeys(first: 20) { edges { node { name hint } } } }")


def test_depth_is_limited_through_fragments_as_well() -> None:
    check("{ a { b { c { d { e } } } } }")
    assert refusal("{ a { b { c { d { e { f } } } } } }") == "QUERY_TOO_DEEP"
    assert refusal("{ a { b { c { ...F } } } } fragment F on X { d { e { f } } }") == "QUERY_TOO_DEEP"
    assert refusal("{ a { b { c { ... on X { d { e { f } } } } } } }") == "QUERY_TOO_DEEP"


def test_a_fragment_that_spreads_itself_comes_to_an_end() -> None:
    assert refusal("{ ...F } fragment F on Query { ...F }") == "QUERY_TOO_DEEP"
    assert refusal("{ ...F } fragment F on Query { a { ...F } }") == "QUERY_TOO_DEEP"


def test_fragments_that_double_each_other_come_to_an_end() -> None:
    bomb = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(30))
    assert refusal("{ ...F0 } " + bomb + " fragment F30 on Query { a }") == "QUERY_TOO_COSTLY"


def test_inline_fragments_do_not_nest_for_ever() -> None:
    assert refusal("{" + "... {" * 60 + "a" + "}" * 61) == "QUERY_TOO_DEEP"


def test_aliases_are_limited_over_all_operations() -> None:
    check("{ a: viewer b: viewer c: viewer }")
    assert refusal("{ a: viewer b: viewer c: viewer d: viewer }") == "TOO_MANY_ALIASES"
    assert refusal("query A { a: viewer b: viewer } query B { c: viewer d: viewer }") == "TOO_MANY_ALIASES"


def test_a_name_costs_as_often_as_it_was_there_before() -> None:
    check("{" + "viewer { kind } " * 15 + "}")
    for query in (
        "{" + "viewer { kind } " * 40 + "}",
        "{ viewer {" + "kind " * 40 + "} }",
        "{" + "... { viewer { kind } } " * 40 + "}",
        "{" + "...F " * 40 + "} fragment F on Query { viewer { kind } }",
        "{" + "viewer { organization { id } } " * 30 + "}",
    ):
        assert refusal(query) == "QUERY_TOO_COSTLY"
    check("{" + " ".join(f"f{number} {{ kind }}" for number in range(100)) + "}")


def test_a_fragment_that_nothing_spreads_is_counted_too() -> None:
    """Validation compares its fields like all others."""
    repeated = "a { b } " * 40
    assert refusal(f"{{ a }} fragment F on Query {{ {repeated} }}") == "QUERY_TOO_COSTLY"
    assert refusal(f"{{ ...F }} fragment F on Query {{ {repeated} }} fragment F on Query {{ a }}") == "QUERY_TOO_COSTLY"
    assert refusal("{ a } fragment F on Query { ...F }") == "QUERY_TOO_DEEP"
    check("{ a } fragment F on Query { a { b } }")


def test_directives_are_limited() -> None:
    check("{ viewer @a @b }")
    assert refusal("{ viewer @a @b @c }") == "TOO_MANY_DIRECTIVES"
    assert refusal("query @a @b { viewer @c }") == "TOO_MANY_DIRECTIVES"
    assert refusal("{ ...F } fragment F on Query @a @b @c { viewer }") == "TOO_MANY_DIRECTIVES"


def test_a_connection_costs_as_often_as_it_is_asked_for() -> None:
    keys = "{{ apiKeys(first: {first}) {{ edges {{ node {{ name }} }} }} }}"
    check(keys.format(first=100))
    wide = "{ apiKeys(first: 100) { edges { node { name hint mode scopes createTime } } } }"
    assert refusal(wide) == "QUERY_TOO_COSTLY"
    check(wide.replace("100", "10"))


@pytest.mark.parametrize("first", [100, -1, "x", None, 10**9])
def test_a_variable_cannot_make_a_connection_cheaper(first: Any) -> None:
    query = "query ($n: Int) { apiKeys(first: $n) { edges { node { name hint mode scopes createTime } } } }"
    check(query, n=10)
    assert refusal(query, n=first) == "QUERY_TOO_COSTLY"


def test_a_default_cannot_make_a_connection_cheaper() -> None:
    query = "query ($n: Int = {n}) {{ apiKeys(first: $n) {{ edges {{ node {{ name hint mode scopes id }} }} }} }}"
    check(query.format(n=10))
    assert refusal(query.format(n=100)) == "QUERY_TOO_COSTLY"
    check(query.format(n=100), n=10)
    assert refusal(query.format(n=10), n=100) == "QUERY_TOO_COSTLY"


def test_a_connection_without_first_costs_a_default_page() -> None:
    query = "{ apiKeys { edges { node { id name hint mode scopes createTime expireTime revokeTime creatorId } } } }"
    assert refusal(query) == "QUERY_TOO_COSTLY"


def test_calls_to_services_cost_more_than_fields() -> None:
    aliased = " ".join(f"a{n}: invoicePreview {{ planId }}" for n in range(10))
    limits = QueryLimits(aliases_max=100, cost_max=100)
    assert refusal("{" + aliased + "}", limits=limits) == "QUERY_TOO_COSTLY"
    harmless = " ".join(f"a{n}: viewer {{ kind }}" for n in range(10))
    check("{" + harmless + "}", limits=limits)


def test_introspection_is_refused_where_it_is_off_and_may_nest_where_it_is_on() -> None:
    query = get_introspection_query()
    assert refusal(query, limits=QueryLimits()) == "INTROSPECTION_DISABLED"
    assert refusal('{ __type(name: "Query") { name } }') == "INTROSPECTION_DISABLED"
    check(query, limits=QueryLimits(), introspection=True)
    check("{ __typename }")
