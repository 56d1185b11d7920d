"""Ids and cursors."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_gateway.failure import Failure
from graphql_gateway.graph.relay import (
    Cursor,
    PageRequest,
    api_key_address_from,
    global_id,
    organization_id_from,
    read_global_id,
)

UUIDS = st.uuids()


@given(UUIDS, UUIDS)
def test_ids_come_back_as_they_were_given(organization_id: UUID, key_id: UUID) -> None:
    assert read_global_id(global_id("ApiKey", str(organization_id), str(key_id))) == (
        "ApiKey",
        [str(organization_id), str(key_id)],
    )
    assert organization_id_from(global_id("Organization", str(organization_id)), "x") == organization_id
    assert organization_id_from(str(organization_id), "x") == organization_id
    key = global_id("ApiKey", str(organization_id), str(key_id))
    assert api_key_address_from(key, "x") == (organization_id, key_id)
    assert api_key_address_from(str(key_id), "x") == (None, key_id)


@pytest.mark.parametrize("text", ["", "x", "§", "0", global_id("Plan", "starter"), "A" * 10_000])
def test_what_is_no_id_is_a_wrong_field(text: str) -> None:
    with pytest.raises(Failure) as caught:
        organization_id_from(text, "organization_id")
    assert caught.value.violations[0].field == "organization_id"


@pytest.mark.parametrize("after", ["", "x", "§§", Cursor(skip=101).encode(), "LTE6eA", "A" * 10_000])
def test_what_is_no_cursor_is_a_wrong_field(after: str) -> None:
    with pytest.raises(Failure) as caught:
        PageRequest.of(10, after)
    assert caught.value.violations[0].field == "after"


@pytest.mark.parametrize("first", [0, -1, 101])
def test_a_page_has_a_largest_size(first: int) -> None:
    with pytest.raises(Failure) as caught:
        PageRequest.of(first, None)
    assert caught.value.violations[0].field == "first"


def test_the_cursor_behind_a_page_is_the_next_pages_token() -> None:
    connection = PageRequest.of(2, None).connection(["a", "b"], "next", str)
    first, last = (PageRequest.of(5, edge.cursor) for edge in connection.edges)
    assert (first.cursor, first.page_size) == (Cursor(page_token="", skip=1), 6)
    assert (last.cursor, last.page_size) == (Cursor(page_token="next"), 5)


def pages(items: list[int], page: PageRequest) -> tuple[list[int], str]:
    """A service: its token is an offset."""
    start = int(page.cursor.page_token or "0")
    end = start + page.page_size
    return items[start:end], str(end) if end < len(items) else ""


@given(count=st.integers(0, 350), sizes=st.lists(st.integers(1, 100), min_size=1, max_size=5), data=st.data())
def test_walking_from_any_edge_visits_everything_once_in_order(
    count: int, sizes: list[int], data: st.DataObject
) -> None:
    items, seen, after = list(range(count)), [], None
    for step in range(5_000):
        request = PageRequest.of(sizes[step % len(sizes)], after)
        answered, token = pages(items, request)
        connection = request.connection(answered, token, lambda item: item)
        if not connection.page_info.has_next_page:
            seen += [edge.node for edge in connection.edges]
            break
        if connection.edges:
            # Continue behind any edge, not only behind the last one.
            stop = data.draw(st.integers(1, len(connection.edges)))
            seen += [edge.node for edge in connection.edges[:stop]]
            after = connection.edges[stop - 1].cursor
        else:
            after = connection.page_info.end_cursor
    assert seen == items
