"""Pages cover a list once, and tokens cannot be made up or carried elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.pagination import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageTokens
from mesh.rpc.errors import InvalidFields

TOKENS = PageTokens(b"secret")


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.integers(1, 20))
def test_pages_are_the_list_in_order_without_gap_or_repetition(values: list[int], page_size: int) -> None:
    rows, seen, token = sorted(values), [], ""
    for _ in range(len(rows) + 1):
        wanted = TOKENS.read(page_size=page_size, page_token=token, listing="l")
        left = [row for row in rows if not wanted.after_key or row > int(wanted.after_key)]
        read = left[: wanted.fetch_limit]
        page = TOKENS.page(read, read, request=wanted, listing="l")
        assert len(page.rows) <= page_size
        seen += page.rows
        token = page.next_page_token
        if not token:
            break
    assert (seen, token) == (rows, "")


@given(
    st.lists(st.integers(0, 1_000), unique=True, max_size=40),
    st.integers(1, 8),
    st.lists(st.tuples(st.booleans(), st.integers(0, 1_000)), max_size=60),
)
def test_rows_that_come_and_go_neither_repeat_nor_push_others_out(
    values: list[int], page_size: int, changes: list[tuple[bool, int]]
) -> None:
    """Whatever is there from the first page to the last is shown once; nothing is shown twice."""
    rows, always, seen, token, left = set(values), set(values), [], "", list(changes)
    for _ in range(200):
        wanted = TOKENS.read(page_size=page_size, page_token=token, listing="l")
        read = [row for row in sorted(rows) if not wanted.after_key or row > int(wanted.after_key)]
        page = TOKENS.page(read[: wanted.fetch_limit], read[: wanted.fetch_limit], request=wanted, listing="l")
        seen += page.rows
        token = page.next_page_token
        if not token:
            break
        for added, row in left[:3]:
            (rows.add if added else rows.discard)(row)
            always.discard(row)
        del left[:3]
    assert len(seen) == len(set(seen))
    assert always <= set(seen)


@given(st.text(min_size=1, max_size=60))
def test_a_token_that_was_made_up_is_refused(token: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        TOKENS.read(page_size=0, page_token=token, listing="l")
    assert [violation.field for violation in refused.value.violations] == ["page_token"]


def test_a_token_of_another_list_or_installation_is_refused() -> None:
    wanted = TOKENS.read(page_size=1, page_token="", listing="l")
    token = TOKENS.page([1, 2], [1, 2], request=wanted, listing="l").next_page_token
    assert TOKENS.read(page_size=1, page_token=token, listing="l").after_key == "1"
    for tokens, listing in ((TOKENS, "other"), (PageTokens(b"other"), "l")):
        with pytest.raises(InvalidFields):
            tokens.read(page_size=1, page_token=token, listing=listing)


@pytest.mark.parametrize("page_size", [-1, PAGE_SIZE_MAX + 1])
def test_sizes_are_bounded(page_size: int) -> None:
    with pytest.raises(InvalidFields):
        TOKENS.read(page_size=page_size, page_token="", listing="l")
    assert TOKENS.read(page_size=0, page_token="", listing="l").size == PAGE_SIZE_DEFAULT
